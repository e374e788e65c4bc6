"""Kept outputs of the frozen network: data/features and data/activations.

Each has a folder for every kept layer. In it lies an array for each split and
view: LAYER/SPLIT-VIEW.npy (n, *shape), rows in the order of data/prepared.
data/features holds the labels, too, and says in extract.json what it holds.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from thaw.data.blocks import Order
from thaw.data.dataset import Gather, open_labels
from thaw.data.splits import count_views
from thaw.files.arrays import continue_array, create_array, open_array
from thaw.files.text import read_json, write_json
from thaw.run.efficientnet import POOLED

ABOUT = "extract.json"


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


class ActivationWriter:
    """Writes the views of one layer and split, by position.

    Args:
        paths: of the array of each view.
        order: of the positions.
        shape: of a row.
        dtype: of the arrays.
        new: whether the arrays are created, or else continued.

    Attributes:
        overflowed: whether a value left the dtype's range.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        order: Order,
        shape: tuple[int, ...],
        dtype: str,
        new: bool,
    ):
        self.arrays = [
            create_array(path, (order.rows, *shape), dtype)
            if new
            else continue_array(path)
            for path in paths
        ]
        self.order, self.overflowed = order, False

    def __setitem__(self, positions: slice, values: np.ndarray) -> None:
        """Writes values (n, *shape) at n consecutive positions."""
        rows, view_numbers = self.order.locate(positions.start, positions.stop)
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        with np.errstate(over="ignore"):
            for part in np.split(np.arange(len(rows)), ends):
                array = self.arrays[view_numbers[part[0]]]
                array[rows[part[0]] : rows[part[-1]] + 1] = values[part]
        limit = np.finfo(self.arrays[0].dtype).max
        if not -limit <= values.min() <= values.max() <= limit:  # or NaN
            self.overflowed = True


def write_about(
    folder: str | Path, labels: Mapping[str, np.ndarray], about: dict[str, Any]
) -> None:
    """Writes what `Features` reads beside the activations.

    Args:
        folder: data/features.
        labels: of each split, (n,) int32.
        about: the attributes of `Features`, and more.
    """
    (Path(folder) / "labels").mkdir()
    for split in labels:
        np.save(get_labels_path(folder, split), labels[split])
    write_json(Path(folder) / ABOUT, about)


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
        """Channels of the pooled features."""
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

    def open_labels(self, split: str) -> np.ndarray:
        """(n,) int32; raises InputError for any that is no class."""
        return open_labels(get_labels_path(self.folder, split), self.classes)

    def open_views(self, layer: str, split: str) -> list[np.ndarray]:
        """(n, *shape) of each view, mapped."""
        return self.gather(layer, split, self.views).arrays

    def gather(self, layer: str, split: str, views: int) -> "KeptViews":
        return gather_kept(self.folder, layer, split, views)


class KeptViews:
    """Gathers views of rows from kept arrays: (n, *shape).

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

    def __call__(
        self, rows: np.ndarray, view_numbers: np.ndarray
    ) -> np.ndarray:
        first = self.arrays[0]
        batch = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for view in np.unique(view_numbers):
            chosen = view_numbers == view
            batch[chosen] = self.arrays[view][rows[chosen]]
        return batch

    def read(self, start: int, stop: int) -> np.ndarray:
        """All views of each row (stop - start, views, *shape)."""
        return np.stack([array[start:stop] for array in self.arrays], axis=1)

    def gather_from(self, inputs: np.ndarray, first: int) -> Gather:
        return lambda rows, view_numbers: inputs[rows - first, view_numbers]


def gather_kept(
    folder: str | Path, layer: str, split: str, views: int
) -> KeptViews:
    """Gathers views of a layer from kept arrays; train alone has `views`."""
    return KeptViews(list_paths(folder, layer, split, views))
