"""data/prepared, opened for reading."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.arrays import open_array
from thaw.files.tables import read_table, write_table
from thaw.files.text import read_json

# Takes rows of a split (n,) and the number of a view of each (n,); gives those
# views, kept or computed (n, *shape).
Gather = Callable[[np.ndarray, np.ndarray], np.ndarray]

# As `Gather`, but may give several arrays of each row.
GatherAll = Callable[[np.ndarray, np.ndarray], np.ndarray | tuple]


class PortableGather(Protocol):
    """A `Gather` that reads rows in one place and makes views in another."""

    def __call__(
        self, rows: np.ndarray, view_numbers: np.ndarray, /
    ) -> np.ndarray: ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """What the views of some rows are made of (n, ...)."""

    def gather_from(self, inputs: np.ndarray, rows: np.ndarray) -> Gather:
        """What gathers by places from rows (n,) that were read (n, ...)."""


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

    def get_path(self, split: str) -> Path:
        """Of its images."""
        return self.folder / split / "images.npy"

    def open_images(self, split: str) -> np.ndarray:
        """(n, H, W, 3) uint8, mapped.

        Raises:
            InputError: where they are anything else.
        """
        path = self.get_path(split)
        images = open_array(path)
        if images.dtype != np.uint8 or images.shape[3:] != (3,):
            raise InputError(
                f"{path} holds {images.dtype} of shape {images.shape}; images "
                "(n, height, width, 3) of uint8 in [0, 255] are expected"
            )
        return images

    def open_labels(self, split: str) -> np.ndarray:
        """(n,) int32; raises InputError for any that is no class."""
        return open_labels(self.folder / split / "labels.npy", self.classes)

    def read_digests(self, split: str) -> np.ndarray:
        """(n, 2) uint64: what is equal where the images are."""
        return np.ascontiguousarray(self.open_facts(split)["digest"])

    def open_facts(self, split: str) -> np.ndarray:
        """(n,) of `thaw.data.facts.FACTS`, mapped."""
        return open_array(self.folder / split / "facts.npy")

    def read_index(self, split: str) -> Iterator[dict[str, str]]:
        return read_table(self.folder / split / "index.csv")

    def read_duplicates(self) -> Iterator[tuple[dict[str, str], np.ndarray]]:
        """The first pairs of copies that were found, least alike first.

        Yields:
            What duplicates.csv says of a pair, and its images
            (2, H, W, 3) uint8.
        """
        images = open_array(self.folder / "duplicates.npy")
        yield from zip(
            read_table(self.folder / "duplicates.csv"), images, strict=False
        )

    def read_pictures(self) -> Iterator[tuple[dict[str, str], np.ndarray]]:
        """Pictures that stand out, of each kind the utmost first.

        Yields:
            What pictures.csv says of one, and its image (H, W, 3) uint8.
        """
        images = {split: self.open_images(split) for split in SPLITS}
        for about in read_table(self.folder / "pictures.csv"):
            yield about, images[about["split"]][int(about["row"])]

    def write_counts(self, path: str | Path) -> None:
        """A CSV with the images of each class and split."""
        rows = []
        for split in SPLITS:
            count = np.bincount(
                self.open_labels(split), minlength=len(self.classes)
            )
            rows += [
                (name, split, number)
                for name, number in zip(self.classes, count, strict=True)
            ]
        write_table(path, ["class", "split", "images"], rows)

    def describe(self) -> list[str]:
        """A line a split: images, and the smallest and largest class."""
        return [
            describe_counts(split, self.open_labels(split), self.classes)
            for split in SPLITS
        ]


def open_labels(path: Path, classes: Sequence[str]) -> np.ndarray:
    """(n,) int32; raises InputError for any that is no class."""
    labels = np.array(open_array(path))
    strange = labels[(labels < 0) | (labels >= len(classes))]
    if len(strange):
        raise InputError(
            f"{path} holds the label {strange[0]}; 0 to {len(classes) - 1} are "
            f"expected, for {len(classes)} classes"
        )
    return labels


def describe_counts(
    split: str, labels: Iterable[int], classes: list[str]
) -> str:
    count = Counter(map(int, labels))
    sizes = [count[label] for label in range(len(classes))]
    return (
        f"{split}: {sum(sizes)} images in {len(classes)} classes, "
        f"{min(sizes)} to {max(sizes)} each"
    )
