"""Decoded images, those of an earlier run among them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.files.arrays import open_array

# Files of each folder of data/prepared that holds images.
IMAGES = "images.npy"
FINGERPRINTS = "fingerprints.npy"
FACTS_FILE = "facts.npy"


@dataclass(frozen=True)
class Decoded:
    """One image, as it is kept.

    Attributes:
        identity: sha256 of its file.
        image: (image_size, image_size, 3) uint8.
        fingerprint: `FINGERPRINT` uint8.
        facts: of dtype `FACTS`.
        known: whether an earlier run decoded it.
    """

    identity: str
    image: np.ndarray
    fingerprint: np.ndarray
    facts: np.ndarray
    known: bool = False


class DecodedBefore:
    """Those in data/prepared, in whatever split, used or not.

    Args:
        folder: data/prepared of an earlier run; None where there was none.
        image_size: pixels a side that are wanted; images of another size
            count for nothing.
    """

    def __init__(self, folder: Path | None, image_size: int):
        self.parts = []
        found = folder.glob(f"*/{FACTS_FILE}") if folder else []
        for path in sorted(found):
            part = path.parent
            images = open_array(part / IMAGES)
            if images.shape[1] == image_size:
                fingerprints = open_array(part / FINGERPRINTS)
                self.parts.append((images, fingerprints, open_array(path)))
        identities = [facts["id"] for _, _, facts in self.parts]
        self._identities = np.concatenate([np.empty(0, "S32"), *identities])
        self._order = np.argsort(self._identities, kind="stable")
        self._ends = np.cumsum([len(part) for part in identities])

    def __len__(self) -> int:
        return len(self._identities)

    def find(self, identity: str) -> Decoded | None:
        """The image of a file with that sha256."""
        key = np.array(bytes.fromhex(identity), "S32")
        place = np.searchsorted(self._identities, key, sorter=self._order)
        if place == len(self):
            return None
        row = self._order[place]
        if self._identities[row] != key:
            return None
        part = np.searchsorted(self._ends, row, side="right")
        row -= self._ends[part - 1] if part else 0
        images, fingerprints, facts = self.parts[part]
        return Decoded(
            identity, images[row], fingerprints[row], facts[row], known=True
        )
