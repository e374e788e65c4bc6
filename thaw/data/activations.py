"""Kept outputs of the frozen network: data/features and data/activations.

Each has a folder for every kept layer. In it lies an array for each split and
view: LAYER/SPLIT-VIEW.npy (n, *shape), rows in the order of data/prepared. Each
says what the rows are of, digests/SPLIT.npy, and in ABOUT what computed them.
data/features holds the labels, too.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from thaw.data.blocks import Order
from thaw.data.dataset import Gather, open_labels
from thaw.data.efficientnet import POOLED
from thaw.data.splits import count_views
from thaw.files.arrays import continue_array, open_array
from thaw.files.text import read_json, write_json

ABOUT = "about.json"


def get_path(folder: str | Path, layer: str, split: str, view: int) -> Path:
    return Path(folder) / layer / f"{split}-{view}.npy"


def list_paths(
    folder: str | Path, layer: str, split: str, views: int
) -> list[Path]:
    """The array of each view of a split; train alone has `views`."""
    return [
        get_path(folder, layer, split, view)
        for view in range(count_views(split, views))
    ]


def get_labels_path(folder: str | Path, split: str) -> Path:
    return Path(folder) / "labels" / f"{split}.npy"


def open_activations(
    folder: str | Path, layer: str, split: str, view: int
) -> np.ndarray:
    """(n, *shape), mapped."""
    return open_array(get_path(folder, layer, split, view))


def get_digests_path(folder: str | Path, split: str) -> Path:
    return Path(folder) / "digests" / f"{split}.npy"


class ActivationWriter:
    """Writes the views of some rows of one layer and split, by position.

    Args:
        paths: of the array of each view, from `create_array`.
        order: of the positions.
        rows: (n,), the rows that the order counts.

    Attributes:
        overflowed: whether a value left the dtype's range.
    """

    def __init__(self, paths: Sequence[Path], order: Order, rows: np.ndarray):
        self.arrays = [continue_array(path) for path in paths]
        self.order, self.rows, self.overflowed = order, rows, False

    def __setitem__(self, positions: slice, values: np.ndarray) -> None:
        """Writes values (n, *shape) at n consecutive positions."""
        places, views = self.order.locate(positions.start, positions.stop)
        with np.errstate(over="ignore"):
            for view in np.unique(views):
                chosen = views == view
                self.arrays[view][self.rows[places[chosen]]] = values[chosen]
        if leaves_range(values, self.arrays[0].dtype):
            self.overflowed = True


def leaves_range(values: np.ndarray, dtype: np.dtype) -> bool:
    """Whether any value is no finite number in a floating-point dtype."""
    limit = np.finfo(dtype).max
    return not -limit <= values.min() <= values.max() <= limit  # or NaN


def write_about(
    folder: str | Path,
    digests: Mapping[str, np.ndarray],
    about: dict[str, Any],
) -> None:
    """Writes what an `Earlier` is found by, beside the activations.

    Args:
        folder: data/features or data/activations.
        digests: of each split, (n, 2) uint64, of the rows' images.
        about: what computed the activations, and more.
    """
    (Path(folder) / "digests").mkdir()
    for split in digests:
        np.save(get_digests_path(folder, split), digests[split])
    write_json(Path(folder) / ABOUT, about)


def write_labels(folder: str | Path, labels: Mapping[str, np.ndarray]) -> None:
    """Of each split, (n,) int32, beside the activations."""
    (Path(folder) / "labels").mkdir()
    for split in labels:
        np.save(get_labels_path(folder, split), labels[split])


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
        about = read_json(self.folder / ABOUT)
        self.classes: list[str] = about["classes"]
        self.tap: str | None = about["tap"]
        self.precision: str = about["precision"]
        self.engine: str = about["engine"]
        self.views: int = about["views"]

    @property
    def size(self) -> int:
        """Columns of the pooled outputs."""
        return open_activations(self.folder, POOLED, "train", 0).shape[1]

    @property
    def wanted_precision(self) -> str:
        """Of a network that goes on from here.

        Its engine may be without bfloat16: "auto" takes what that has.
        """
        return "float32" if self.precision == "float32" else "auto"

    @property
    def tap_dtype(self) -> str:
        assert self.tap, "asked for where it was kept"
        return str(open_activations(self.folder, self.tap, "train", 0).dtype)

    def open_digests(self, split: str) -> np.ndarray:
        """(n, 2) uint64, of the rows' images."""
        return np.array(open_array(get_digests_path(self.folder, split)))

    def open_labels(self, split: str) -> np.ndarray:
        """(n,) int32; raises InputError for any that is no class."""
        return open_labels(get_labels_path(self.folder, split), self.classes)

    def open_views(self, layer: str, split: str) -> list[np.ndarray]:
        """(n, *shape) of each view, mapped."""
        return self.gather(layer, split, self.views).arrays

    def gather(
        self,
        layer: str,
        split: str,
        views: int,
        columns: slice = slice(None),
    ) -> "KeptViews":
        paths = list_paths(self.folder, layer, split, views)
        return KeptViews(paths, columns)


class KeptViews:
    """Gathers views of rows from kept arrays: (n, *shape).

    Args:
        paths: of the array of each view.
        columns: of each row, its first axis.
    """

    def __init__(self, paths: Sequence[Path], columns: slice = slice(None)):
        self.paths = [path.absolute() for path in paths]
        self.columns = columns

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        return [open_array(path)[:, self.columns] for path in self.paths]

    def __getstate__(self) -> dict:
        return {"paths": self.paths, "columns": self.columns}

    def __call__(
        self, rows: np.ndarray, view_numbers: np.ndarray
    ) -> np.ndarray:
        first = self.arrays[0]
        batch = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for view in np.unique(view_numbers):
            chosen = view_numbers == view
            batch[chosen] = self.arrays[view][rows[chosen]]
        return batch

    def read(self, rows: np.ndarray) -> np.ndarray:
        """All views of each row (n, views, *shape)."""
        return np.stack([array[rows] for array in self.arrays], axis=1)

    def gather_from(self, inputs: np.ndarray, rows: np.ndarray) -> Gather:
        return lambda places, view_numbers: inputs[places, view_numbers]


def gather_kept(
    folder: str | Path, layer: str, split: str, views: int
) -> KeptViews:
    """Gathers views of a layer from kept arrays; train alone has `views`."""
    return KeptViews(list_paths(folder, layer, split, views))
