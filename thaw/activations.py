"""Frozen outputs on disk, written: data/features and data/activations."""

import math
import time
from collections.abc import Iterable
from functools import partial

import numpy as np

from thaw.backend import keras
from thaw.checkpoints import Checkpoint
from thaw.console import format_bytes, format_seconds, progress, say
from thaw.dataset import Gather
from thaw.errors import InputError
from thaw.features import get_path, open_activations
from thaw.files import (
    continue_array,
    create_array,
)
from thaw.frozen import FrozenNetwork

# Images of the short run that the time to come is told from.
TRIAL = 128

# How much is done again at most after a run was cut off.
SECONDS_BETWEEN_NOTES = 10


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
    checkpoint: Checkpoint,
    views: int,
    rows: dict[str, int],
    gather: dict[str, Gather],
    label: str,
) -> None:
    """Runs every split and view through the network, once.

    Goes on where the checkpoint's note says that an earlier run was cut off.

    Args:
        network: one output for each layer.
        layers: layer name to "float16" or "float32", in the network's order.
            A layer that leaves float16's range is written in float32 instead,
            in a second pass.
        checkpoint: in whose folder the layers' folders are made.
        views: of the training images.
        rows: images in each split that is to be written.
        gather: for each split, the network's inputs.
        label: of the progress bar.

    Raises:
        InputError: where an output is not finite.
        OSError: where the disk has not the room.
    """
    by = f"{network.engine} {network.precision}"
    start = {"done": 0, "dtypes": layers, "overflowed": [], "by": by}
    if checkpoint.note.get("by") != by:
        checkpoint.write(**start)
        for layer in layers:
            (checkpoint.folder / layer).mkdir(parents=True, exist_ok=True)
    images = sum(rows[split] for split, _ in list_views(rows, views))
    segment = images
    if checkpoint.note["done"] < images:
        segment = preview(network, checkpoint, images, views, rows, gather)
    while overflowed := write_once(
        network, checkpoint, views, rows, gather, label, segment
    ):
        names = ", ".join(sorted(overflowed))
        dtypes = checkpoint.note["dtypes"]
        if any(dtypes[layer] == "float32" for layer in overflowed):
            raise InputError(
                f"{names} gives values that are not finite: the backbone's "
                "weights are broken"
            )
        say(f"{names} leaves float16's range: once more, in float32")
        dtypes |= dict.fromkeys(overflowed, "float32")
        checkpoint.write(**(start | {"dtypes": dtypes}))


def predict(
    model: keras.Model, inputs: np.ndarray, checkpoint: Checkpoint, label: str
) -> np.ndarray:
    """What a model makes of the test split, in float32: (n, classes)."""
    network = FrozenNetwork(model, "float32", str(inputs.dtype))
    (layer,) = model.output_names
    write_activations(
        network,
        {layer: "float32"},
        checkpoint,
        views=1,
        rows={"test": len(inputs)},
        gather={"test": lambda rows, views: inputs[rows]},
        label=label,
    )
    return np.array(open_activations(checkpoint.folder, layer, "test", view=0))


def preview(
    network: FrozenNetwork,
    checkpoint: Checkpoint,
    images: int,
    views: int,
    rows: dict[str, int],
    gather: dict[str, Gather],
) -> int:
    """Says what is to come; refuses what the disk can't hold.

    Returns:
        Images that the network runs between two notes.
    """
    done, dtypes = checkpoint.note["done"], checkpoint.note["dtypes"]
    size = images * sum(
        math.prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in zip(network.outputs, dtypes.values(), strict=True)
    )
    # DVC's cache may have to copy.
    checkpoint.check_room(2 * size, "fewer views or no tap need less")
    split, view = max(list_views(rows, views), key=lambda item: item[1])
    load = partial(load_view, gather[split], view)
    trial = min(TRIAL, rows[split], math.ceil(images / 20))
    outs = [np.empty((trial, *s), np.float32) for s in network.outputs]
    network.run(load, 1, outs)  # compiles
    start = time.perf_counter()
    network.run(load, trial, outs)
    seconds_each = (time.perf_counter() - start) / trial
    say(
        f"{images} images, views counted; {format_bytes(size)} to write; about "
        + format_seconds((images - done) * seconds_each)
    )
    size = network.batch_size
    segment = size * math.ceil(SECONDS_BETWEEN_NOTES / seconds_each / size)
    if done:
        say(
            f"goes on from a run that was cut off: {done} are done, at most "
            f"{min(segment, images - done)} of them run again"
        )
    return segment


def load_view(
    gather: Gather, view: int, start: int, stop: int, first: int = 0
) -> np.ndarray:
    """Consecutive rows of one view, counted from `first`."""
    rows = np.arange(first + start, first + stop)
    return gather(rows, np.full(stop - start, view))


def write_once(
    network: FrozenNetwork,
    checkpoint: Checkpoint,
    views: int,
    rows: dict[str, int],
    gather: dict[str, Gather],
    label: str,
    segment: int,
) -> list[str]:
    """One pass over everything; the layers that left their dtype's range."""
    note = checkpoint.note
    overflowed = set(note["overflowed"])
    passed = 0  # images of the splits and views before this one
    total = sum(rows[split] for split, _ in list_views(rows, views))
    with progress(total, label, "images") as bar:
        bar.update(note["done"])
        for split, view in list_views(rows, views):
            start = min(max(note["done"] - passed, 0), rows[split])
            passed += rows[split]
            if start == rows[split]:
                continue
            outs = {}
            for shape, (layer, dtype) in zip(
                network.outputs, note["dtypes"].items(), strict=True
            ):
                path = get_path(checkpoint.folder, layer, split, view)
                outs[layer] = (
                    continue_array(path)
                    if start
                    else create_array(path, (rows[split], *shape), dtype)
                )
            for first in range(start, rows[split], segment):
                stop = min(first + segment, rows[split])
                parts = {x: RangedArray(a[first:stop]) for x, a in outs.items()}
                network.run(
                    partial(load_view, gather[split], view, first=first),
                    stop - first,
                    list(parts.values()),
                    bar.update,
                    get_precision(network, split),
                )
                overflowed |= {x for x, a in parts.items() if a.overflowed}
                checkpoint.write(
                    **(
                        note
                        | {
                            "done": passed - rows[split] + stop,
                            "overflowed": sorted(overflowed),
                        }
                    )
                )
    return sorted(overflowed)
