"""data/prepared, opened for reading."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from thaw.files import open_array, read_json, read_table
from thaw.splits import SPLITS


class Dataset:
    """Images (n, H, W, 3) uint8, labels (n,) int32 and the index, by split.

    Attributes:
        classes: their names; labels are indices into them.
        image_size: pixels a side.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.classes: list[str] = read_json(self.folder / "classes.json")
        self.image_size: int = self.open_images("train").shape[1]

    def open_images(self, split: str) -> np.ndarray:
        """(n, H, W, 3) uint8, mapped."""
        return open_array(self.folder / split / "images.npy")

    def open_labels(self, split: str) -> np.ndarray:
        """(n,) int32."""
        return np.array(open_array(self.folder / split / "labels.npy"))

    def read_index(self, split: str) -> Iterator[dict[str, str]]:
        return read_table(self.folder / split / "index.csv")

    def describe(self) -> list[str]:
        """A line a split: images, and the smallest and largest class."""
        return [
            describe_counts(split, self.open_labels(split), self.classes)
            for split in SPLITS
        ]


def describe_counts(
    split: str, labels: Iterable[int], classes: list[str]
) -> str:
    count = Counter(map(int, labels))
    sizes = [count[label] for label in range(len(classes))]
    return (
        f"{split}: {sum(sizes)} images in {len(classes)} classes, "
        f"{min(sizes)} to {max(sizes)} each"
    )
