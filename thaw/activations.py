"""Frozen outputs on disk, written: data/features and data/activations."""

import math
import shutil
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from thaw.console import format_bytes, format_seconds, progress, say
from thaw.errors import InputError
from thaw.features import Gather, get_path
from thaw.files import create_array
from thaw.frozen import FrozenNetwork

# Images of the short run that the time to come is told from.
TRIAL = 128


def list_views(splits: Iterable[str], views: int) -> list[tuple[str, int]]:
    """(split, view): all views of the training images, one of the others."""
    return [
        (split, view)
        for split in splits
        for view in range(views if split == "train" else 1)
    ]


def get_precision(network: FrozenNetwork, split: str) -> str:
    """Scores are those of the shipped model, which runs in float32."""
    return network.precision if split == "train" else "float32"


class RangedArray:
    """Writes into an array and notices what its dtype can't hold."""

    def __init__(self, array: np.ndarray):
        self.array, self.overflowed = array, False

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            self.array[rows] = values
        limit = np.finfo(self.array.dtype).max
        if not -limit <= values.min() <= values.max() <= limit:  # or NaN
            self.overflowed = True


def write_activations(
    network: FrozenNetwork,
    layers: dict[str, str],
    folder: Path,
    views: int,
    rows: dict[str, int],
    gather: dict[str, Gather],
    label: str,
) -> None:
    """Runs every split and view through the network, once.

    Args:
        network: one output for each layer.
        layers: layer name to "float16" or "float32", in the network's order.
            A layer that leaves float16's range is written in float32 instead,
            in a second pass.
        folder: where the layers' folders are made.
        views: of the training images.
        rows: images in each split that is to be written.
        gather: for each split, the network's inputs.
        label: of the progress bar.

    Raises:
        InputError: where the disk has not the room, or an output is not
            finite.
    """
    for layer in layers:
        (folder / layer).mkdir(parents=True)
    dtypes = dict(layers)
    preview(network, dtypes, folder, views, rows, gather)
    while overflowed := write_once(
        network, dtypes, folder, views, rows, gather, label
    ):
        names = ", ".join(sorted(overflowed))
        if any(dtypes[layer] == "float32" for layer in overflowed):
            raise InputError(
                f"{names} gives values that are not finite: the backbone's "
                "weights are broken"
            )
        say(f"{names} leaves float16's range: once more, in float32")
        dtypes |= dict.fromkeys(overflowed, "float32")


def preview(
    network: FrozenNetwork,
    dtypes: dict[str, str],
    folder: Path,
    views: int,
    rows: dict[str, int],
    gather: dict[str, Gather],
) -> None:
    """Says what is to come; refuses what the disk can't hold."""
    images = sum(rows[split] for split, _ in list_views(rows, views))
    size = images * sum(
        math.prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in zip(network.outputs, dtypes.values(), strict=True)
    )
    # DVC's cache may have to copy.
    free = shutil.disk_usage(folder).free
    if 2 * size > free:
        raise InputError(
            f"{format_bytes(2 * size)} are needed, with DVC's copy, and "
            f"{format_bytes(free)} are free: fewer views or no tap need less"
        )
    load = partial(load_view, gather["train"], views - 1)
    trial = min(TRIAL, rows["train"])
    outs = [np.empty((trial, *s), np.float32) for s in network.outputs]
    network.run(load, 1, outs)  # compiles
    start = time.perf_counter()
    network.run(load, trial, outs)
    seconds = images * (time.perf_counter() - start) / trial
    say(
        f"{images} images, views counted; {format_bytes(size)} to write, twice "
        f"that with DVC's copy; about {format_seconds(seconds)}"
    )


def load_view(gather: Gather, view: int, start: int, stop: int) -> np.ndarray:
    """Consecutive rows of one view."""
    return gather(np.arange(start, stop), np.full(stop - start, view))


def write_once(
    network: FrozenNetwork,
    dtypes: dict[str, str],
    folder: Path,
    views: int,
    rows: dict[str, int],
    gather: dict[str, Gather],
    label: str,
) -> set[str]:
    """One pass over everything; the layers that left their dtype's range."""
    overflowed = set()
    total = sum(rows[split] for split, _ in list_views(rows, views))
    with progress(total, label, "images") as bar:
        for split, view in list_views(rows, views):
            outs = {
                layer: RangedArray(
                    create_array(
                        get_path(folder, layer, split, view),
                        (rows[split], *shape),
                        dtype,
                    )
                )
                for (layer, dtype), shape in zip(
                    dtypes.items(), network.outputs, strict=True
                )
            }
            network.run(
                partial(load_view, gather[split], view),
                rows[split],
                list(outs.values()),
                bar.update,
                get_precision(network, split),
            )
            overflowed |= {x for x, out in outs.items() if out.overflowed}
    return overflowed
