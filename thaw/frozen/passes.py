"""Frozen outputs on disk, written: data/features and data/activations."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from thaw.data.activations import get_path, open_activations
from thaw.data.blocks import Order, choose_block
from thaw.data.dataset import Gather, Views
from thaw.errors import InputError
from thaw.files.arrays import continue_array, create_array
from thaw.frozen.network import FrozenNetwork
from thaw.frozen.ray import Cluster
from thaw.network.backend import keras, warn_of_float32
from thaw.run.checkpoints import Checkpoint
from thaw.run.console import (
    Bar,
    format_bytes,
    format_count,
    format_seconds,
    progress,
    say,
)

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


class Outputs:
    """The arrays of one layer and split, filled by position.

    Args:
        paths: of the array of each view.
        order: of the positions.
        shape: of a row.
        dtype: of the arrays.
        new: whether they are to be made, or else continued.

    Attributes:
        overflowed: whether something left the dtype's range.
    """

    def __init__(
        self,
        paths: list[Path],
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
        self._first = 0

    def shift(self, first: int) -> "Outputs":
        """Slices count from this position from now on."""
        self._first = first
        return self

    def __setitem__(self, span: slice, values: np.ndarray) -> None:
        rows, views = self.order.locate(
            self._first + span.start, self._first + span.stop
        )
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        with np.errstate(over="ignore"):
            for part in np.split(np.arange(len(rows)), ends):
                array = self.arrays[views[part[0]]]
                array[rows[part[0]] : rows[part[-1]] + 1] = values[part]
        limit = np.finfo(self.arrays[0].dtype).max
        if not -limit <= values.min() <= values.max() <= limit:  # or NaN
            self.overflowed = True


def load(
    gather: Gather, order: Order, first: int, start: int, stop: int
) -> np.ndarray:
    """What lies at consecutive positions, counted from `first`."""
    return gather(*order.locate(first + start, first + stop))


def write_activations(
    network: FrozenNetwork,
    layers: dict[str, str],
    checkpoint: Checkpoint,
    views: int,
    rows: dict[str, int],
    gather: dict[str, Gather],
    label: str,
    cluster: Cluster | None = None,
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
        cluster: what runs it instead of this machine; `gather` are `Views`.

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
    outputs = 4 * sum(math.prod(shape) for shape in network.outputs)
    orders = {
        split: Order(
            rows[split],
            count := views if split == "train" else 1,
            choose_block(network.input_bytes, outputs, count),
        )
        for split in rows
    }
    images = sum(map(len, orders.values()))
    segment = images
    if checkpoint.note["done"] < images:
        segment = preview(network, checkpoint, orders, gather, label, cluster)
    while overflowed := write_once(
        network, checkpoint, orders, gather, label, segment, cluster
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
    orders: dict[str, Order],
    gather: dict[str, Gather],
    label: str,
    cluster: Cluster | None,
) -> int:
    """Says what is to come; refuses what the disk can't hold.

    Returns:
        Images that the network runs between two notes.
    """
    dtypes = checkpoint.note["dtypes"]
    done = sum(find_starts(checkpoint, orders, cluster).values())
    images = sum(map(len, orders.values()))
    size = images * sum(
        math.prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in zip(network.outputs, dtypes.values(), strict=True)
    )
    # DVC's cache may have to copy.
    checkpoint.check_room(2 * size, "fewer views or no tap need less")
    warn_of_float32()
    counted = (
        ", views counted"
        if images > sum(order.rows for order in orders.values())
        else ""
    )
    known = (
        f"{label}: {format_count(images, 'image')}{counted}; "
        f"{format_bytes(size)} to write"
    )
    if cluster:
        say(f"{known}; {cluster.describe(network)}")
        segment = 1
    else:
        split = max(orders, key=lambda split: orders[split].views)
        order = orders[split]
        trial = min(TRIAL, order.rows, math.ceil(images / 20))
        # Of the last view, which is augmented.
        inputs = partial(load, gather[split], order, len(order) - trial)
        outs = [np.empty((trial, *s), np.float32) for s in network.outputs]
        network.run(inputs, 1, outs)  # compiles
        start = time.perf_counter()
        network.run(inputs, trial, outs)
        seconds_each = (time.perf_counter() - start) / trial
        say(f"{known}; about {format_seconds((images - done) * seconds_each)}")
        size = network.batch_size
        segment = size * math.ceil(SECONDS_BETWEEN_NOTES / seconds_each / size)
    if done:
        say(f"goes on from a run that was cut off: {done} are done")
    return segment


def find_starts(
    checkpoint: Checkpoint, orders: dict[str, Order], cluster: Cluster | None
) -> dict[str, int]:
    """The position in each split that is to be run next.

    A cluster runs whole blocks: one that was not finished runs again.
    """
    starts, passed = {}, 0
    for split, order in orders.items():
        start = min(max(checkpoint.note["done"] - passed, 0), len(order))
        if cluster and start < len(order):
            start -= start % order.step
        starts[split] = start
        passed += len(order)
    return starts


def write_once(
    network: FrozenNetwork,
    checkpoint: Checkpoint,
    orders: dict[str, Order],
    gather: dict[str, Gather],
    label: str,
    segment: int,
    cluster: Cluster | None,
) -> list[str]:
    """One pass over everything; the layers that left their dtype's range."""
    note = checkpoint.note
    dtypes = note["dtypes"]
    overflowed = set(note["overflowed"])
    starts = find_starts(checkpoint, orders, cluster)
    before, passed = {}, 0
    for split, order in orders.items():
        before[split] = passed
        passed += len(order)

    def open_outputs(split: str) -> list[Outputs]:
        return [
            Outputs(
                [
                    get_path(checkpoint.folder, layer, split, view)
                    for view in range(orders[split].views)
                ],
                orders[split],
                shape,
                note["dtypes"][layer],
                new=starts[split] == 0,
            )
            for shape, layer in zip(
                network.outputs, note["dtypes"], strict=True
            )
        ]

    dtypes = list(note["dtypes"].values())
    with progress(passed, label, "images", sum(starts.values())) as bar:
        if cluster:
            portions = run_there(
                cluster,
                network,
                orders,
                gather,
                starts,
                dtypes,
                open_outputs,
                bar,
            )
        else:
            portions = run_here(
                network, orders, gather, starts, open_outputs, bar, segment
            )
        for split, stop, outs in portions:
            overflowed |= {
                layer
                for layer, out in zip(note["dtypes"], outs, strict=True)
                if out.overflowed
            }
            done = {
                "done": before[split] + stop,
                "overflowed": sorted(overflowed),
            }
            checkpoint.write(**(note | done))
    return sorted(overflowed)


# Of a split, up to a position, what was written.
Portion = tuple[str, int, list[Outputs]]


def run_here(
    network: FrozenNetwork,
    orders: dict[str, Order],
    gather: dict[str, Gather],
    starts: dict[str, int],
    open_outputs: Callable[[str], list[Outputs]],
    bar: Bar,
    segment: int,
) -> Iterator[Portion]:
    """In portions of `segment` positions."""
    for split, order in orders.items():
        if starts[split] == len(order):
            continue
        outs = open_outputs(split)
        for first in range(starts[split], len(order), segment):
            stop = min(first + segment, len(order))
            network.run(
                partial(load, gather[split], order, first),
                stop - first,
                [out.shift(first) for out in outs],
                bar.update,
                get_precision(network, split),
            )
            yield split, stop, outs


def run_there(
    cluster: Cluster,
    network: FrozenNetwork,
    orders: dict[str, Order],
    views: dict[str, Views],
    starts: dict[str, int],
    dtypes: list[str],
    open_outputs: Callable[[str], list[Outputs]],
    bar: Bar,
) -> Iterator[Portion]:
    """In blocks."""
    opened = {}
    precisions = {split: get_precision(network, split) for split in orders}
    for split, first, results in cluster.run(
        network, views, orders, precisions, dtypes, starts
    ):
        if split not in opened:
            opened = {split: open_outputs(split)}
        for out, values in zip(opened[split], results, strict=True):
            out.shift(first)[0 : len(values)] = values
        bar.update(len(results[0]))
        yield split, first + len(results[0]), opened[split]
