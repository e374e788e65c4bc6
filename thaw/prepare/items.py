"""What a source yields: its classes, and images that are loaded later.

On a thread, so that a bad file costs one image and a large set no memory.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.data.images import convert_image, decode_image


@dataclass(frozen=True)
class Item:
    """One image, not yet loaded."""

    path: str
    label: int
    split: str  # "train" where the source brings no splits
    load: Callable[[], tuple[str, Image.Image]]  # sha256 of its bytes, picture


@dataclass(frozen=True)
class Source:
    classes: list[str]
    splits: list[str]  # those the source brings
    sizes: dict[str, int]  # images of each split; train where it brings none
    items: Iterator[Item]
    notes: list[str] = field(default_factory=list)  # sentences for the user

    @property
    def size(self) -> int:
        """Images in all."""
        return sum(self.sizes.values())


def load_array(pixels: np.ndarray) -> tuple[str, Image.Image]:
    if pixels.dtype == np.uint16:
        pixels = (pixels // 256).astype(np.uint8)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes())
    return digest.hexdigest(), convert_image(Image.fromarray(pixels))


def load_file(path: Path) -> tuple[str, Image.Image]:
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), decode_image(data)
