"""Frozen outputs on disk, read: data/features and data/activations.

In each a folder for every layer that was kept, in it an array for each split
and view, rows in the order of data/prepared.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from thaw.data.dataset import Gather, open_labels
from thaw.files.arrays import open_array
from thaw.files.text import read_json
from thaw.run.efficientnet import POOLED


def get_path(folder: str | Path, layer: str, split: str, view: int) -> Path:
    return Path(folder) / layer / f"{split}-{view}.npy"


def open_activations(
    folder: str | Path, layer: str, split: str, view: int
) -> np.ndarray:
    """(n, *shape), mapped."""
    return open_array(get_path(folder, layer, split, view))


class Features:
    """data/features, opened for reading.

    Attributes:
        classes: their names.
        tap: name of the layer at the tap, None where it was not kept.
        precision, engine: of the frozen part.
        views: of the training images.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        about = read_json(self.folder / "extract.json")
        self.classes: list[str] = about["classes"]
        self.tap: str | None = about["tap"]
        self.precision: str = about["precision"]
        self.engine: str = about["engine"]
        self.views: int = about["views"]

    @property
    def size(self) -> int:
        """Channels of the pooled features."""
        return open_activations(self.folder, POOLED, "train", 0).shape[1]

    @property
    def wanted_precision(self) -> str:
        """Of what continues from here, maybe on an engine without bfloat16."""
        return "float32" if self.precision == "float32" else "auto"

    @property
    def tap_dtype(self) -> str:
        return str(open_activations(self.folder, self.tap, "train", 0).dtype)

    def open_labels(self, split: str) -> np.ndarray:
        """(n,) int32; raises InputError for any that is no class."""
        path = self.folder / "labels" / f"{split}.npy"
        return open_labels(path, self.classes)

    def open_views(self, layer: str, split: str) -> list[np.ndarray]:
        """(n, *shape) of each view, mapped."""
        return self.gather(layer, split, self.views).arrays

    def gather(self, layer: str, split: str, views: int) -> "KeptViews":
        return gather_kept(self.folder, layer, split, views)


class KeptViews:
    """Of rows and their views, from arrays that are there: (n, *shape).

    Args:
        paths: of the array of each view.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = [path.absolute() for path in paths]

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        return [open_array(path) for path in self.paths]

    def __getstate__(self) -> dict:
        return {"paths": self.paths}

    def __call__(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        first = self.arrays[0]
        batch = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for view in np.unique(views):
            batch[views == view] = self.arrays[view][rows[views == view]]
        return batch

    def read(self, start: int, stop: int) -> np.ndarray:
        """All views of each row (stop - start, views, *shape)."""
        return np.stack([array[start:stop] for array in self.arrays], axis=1)

    def gather_from(self, inputs: np.ndarray, first: int) -> Gather:
        return lambda rows, views: inputs[rows - first, views]


def gather_kept(
    folder: str | Path, layer: str, split: str, views: int
) -> KeptViews:
    """From the arrays of one layer, mapped; `views` counts only for train."""
    return KeptViews(
        [
            get_path(folder, layer, split, view)
            for view in range(views if split == "train" else 1)
        ]
    )
