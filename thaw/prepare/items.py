"""What a source yields: its classes, and images that are read later.

On a thread, so that a bad file costs one image and a large set no memory.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.data.images import check_range, convert_image, decode_image


@dataclass(frozen=True)
class Encoded:
    """One image, read and not yet decoded."""

    identity: str  # sha256 of its bytes
    decode: Callable[[], Image.Image]  # RGB


@dataclass(frozen=True)
class Item:
    """One image, not yet read."""

    path: str
    label: int
    split: str  # "train" where the source brings no splits
    read: Callable[[], Encoded]
    group: str = ""  # as the source has it


@dataclass(frozen=True)
class Source:
    classes: list[str]
    splits: list[str]  # those the source brings
    sizes: dict[str, int]  # images of each split; train where it brings none
    items: Iterator[Item]
    notes: list[str] = field(default_factory=list)  # sentences for the user
    grouped: bool = False  # whether the source names groups

    @property
    def size(self) -> int:
        """Images in all."""
        return sum(self.sizes.values())


def read_array(pixels: np.ndarray) -> Encoded:
    if pixels.dtype == np.uint16:
        check_range(int(pixels.max()))
        pixels = (pixels // 256).astype(np.uint8)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes())
    return Encoded(
        digest.hexdigest(), lambda: convert_image(Image.fromarray(pixels))
    )


def read_file(path: Path) -> Encoded:
    data = path.read_bytes()
    return Encoded(
        hashlib.sha256(data).hexdigest(), partial(decode_image, data)
    )
