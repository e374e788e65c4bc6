"""Frozen passes: what writes data/features and data/activations."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import cast

import numpy as np

from thaw.data.activations import (
    ActivationWriter,
    get_path,
    list_paths,
)
from thaw.data.blocks import Order, choose_block, count_before, find_starts
from thaw.data.dataset import Gather, PortableGather
from thaw.data.splits import count_views
from thaw.errors import InputError
from thaw.files.arrays import create_array
from thaw.files.phrases import format_bytes, format_count, format_seconds
from thaw.frozen.earlier import Earlier
from thaw.frozen.network import FrozenNetwork
from thaw.frozen.ray import Cluster, Job
from thaw.run.console import Bar, progress, say
from thaw.stage.checkpoints import Checkpoint

# Images timed to estimate the duration, at most.
TRIAL = 128

# A run that is cut off loses the work of so long at most.
SECONDS_BETWEEN_NOTES = 10

# A split, the position up to which it has passed, and its layers' writers.
Portion = tuple[str, int, list[ActivationWriter]]


@dataclass(frozen=True)
class FrozenPass:
    """Every view of every row of some splits, once through a frozen network.

    Rows that an earlier pass wrote do not pass; they are copied.

    Attributes:
        network: one output for each layer.
        layers: layer name to "float16" or "float32", in the network's order.
            Those of test are in float32 anyway: `evaluate` goes on from them.
            A layer that leaves float16's range is written in float32 instead,
            in a second run.
        rows: images in each split.
        views: of each training image.
        gather: of each split, gives the network's inputs; on a cluster it is a
            `PortableGather`.
        label: of the progress bar.
        earlier: what was written of the same layers, in the same way.
    """

    network: FrozenNetwork
    layers: dict[str, str]
    rows: dict[str, int]
    views: int
    gather: Mapping[str, Gather]
    label: str
    earlier: Earlier | None = None

    def write(
        self, checkpoint: Checkpoint, cluster: Cluster | None = None
    ) -> None:
        """Writes the activations of each layer into the checkpoint's folder.

        Resumes where the checkpoint's note says that an earlier run was cut
        off.

        Args:
            checkpoint: gets a folder for each layer.
            cluster: runs the network instead of this machine.

        Raises:
            InputError: where an output is not finite.
            OSError: where the disk has not the room.
        """
        again = self
        if checkpoint.note.get("by") == self.by:
            again = replace(self, layers=checkpoint.note["dtypes"])
        else:
            self._begin(checkpoint)
        while overflowed := again._run(checkpoint, cluster):
            again = replace(again, layers=again._widen(overflowed))
            again._begin(checkpoint)

    @property
    def by(self) -> str:
        """What computes; another one can't go on with the work."""
        identity = self.earlier.identity if self.earlier else ""
        return f"{self.network.engine} {self.network.precision} {identity}"

    @cached_property
    def kept(self) -> Earlier | None:
        """The earlier pass, if it wrote all that is wanted of a row."""
        earlier = self.earlier
        wanted = {
            path: self.get_dtype(layer, split)
            for layer in self.layers
            for split in self.rows
            for path in list_paths("", layer, split, self.views)
        }
        return earlier if earlier and earlier.has(wanted) else None

    def get_dtype(self, layer: str, split: str) -> str:
        return "float32" if split == "test" else self.layers[layer]

    @cached_property
    def passing(self) -> dict[str, np.ndarray]:
        """Of each split, the rows that pass (n,)."""
        if not self.kept:
            return {split: np.arange(rows) for split, rows in self.rows.items()}
        places = self.kept.places
        return {split: np.flatnonzero(places[split] < 0) for split in self.rows}

    @cached_property
    def orders(self) -> dict[str, Order]:
        """Of each split, as they pass one after the other."""
        values = sum(math.prod(shape) for shape in self.network.outputs)
        orders = {}
        for split, rows in self.passing.items():
            views = count_views(split, self.views)
            block = choose_block(self.network.input_bytes, 4 * values, views)
            orders[split] = Order(len(rows), views, block)
        return orders

    @cached_property
    def images(self) -> int:
        """That the network runs on, views counted."""
        return sum(map(len, self.orders.values()))

    def _begin(self, checkpoint: Checkpoint) -> None:
        """Makes the arrays, and fills the rows that do not pass."""
        for layer in self.layers:
            (checkpoint.folder / layer).mkdir(parents=True, exist_ok=True)
        self._check_room(checkpoint)
        overflowed = set()
        for shape, layer in zip(self.network.outputs, self.layers, strict=True):
            for split, rows in self.rows.items():
                for view in range(count_views(split, self.views)):
                    array = create_array(
                        get_path(checkpoint.folder, layer, split, view),
                        (rows, *shape),
                        self.get_dtype(layer, split),
                    )
                    if self.kept and self.kept.copy(layer, split, view, array):
                        overflowed.add(layer)
        checkpoint.write(
            done=0,
            dtypes=self.layers,
            overflowed=sorted(overflowed),
            by=self.by,
        )

    def _find_starts(
        self, checkpoint: Checkpoint, cluster: Cluster | None
    ) -> dict[str, int]:
        """A cluster runs whole blocks."""
        done = checkpoint.note["done"]
        return find_starts(self.orders, done, whole_blocks=bool(cluster))

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return sum(
            rows
            * count_views(split, self.views)
            * math.prod(shape)
            * np.dtype(self.get_dtype(layer, split)).itemsize
            for split, rows in self.rows.items()
            for layer, shape in zip(
                self.layers, self.network.outputs, strict=True
            )
        )

    def _check_room(self, checkpoint: Checkpoint) -> None:
        """Raises OSError where the disk can't hold the arrays and a copy."""
        size = 2 * self.size  # DVC's cache may have to copy
        checkpoint.check_room(size, "fewer views or no tap need less")

    def _count_passing(self) -> int:
        return sum(map(len, self.passing.values()))

    def _announce(self, checkpoint: Checkpoint, cluster: Cluster | None) -> int:
        """Says what is to come and how long it takes.

        Returns:
            Images that this machine runs between two notes.
        """
        counted = ", views counted" * (self.images > self._count_passing())
        known = (
            f"{self.label}: {format_count(self.images, 'image')}{counted}; "
            f"{format_bytes(self.size)} to write"
        )
        done = sum(self._find_starts(checkpoint, cluster).values())
        segment = self.images
        if cluster:
            say(f"{known}; {cluster.describe(self.network)}")
        else:
            each = self._time_image()
            left = format_seconds((self.images - done) * each)
            say(f"{known}; about {left}")
            batch = self.network.batch_size
            segment = batch * math.ceil(SECONDS_BETWEEN_NOTES / each / batch)
        if done:
            say(f"resumes a run that was cut off: {done} are done")
        return segment

    def _time_image(self) -> float:
        """Seconds that an image takes, by a short run."""
        split = max(self.orders, key=lambda split: len(self.orders[split]))
        order = self.orders[split]
        count = min(TRIAL, order.rows, math.ceil(self.images / 20))
        first = len(order) - count  # in the last view, which is augmented

        def load(start: int, stop: int) -> np.ndarray:
            return self._load(split, first + start, first + stop)

        shapes = self.network.outputs
        outs = [np.empty((count, *shape), np.float32) for shape in shapes]
        self.network.run(load, 1, outs)  # compiles
        start = time.perf_counter()
        self.network.run(load, count, outs)
        return (time.perf_counter() - start) / count

    def _load(self, split: str, start: int, stop: int) -> np.ndarray:
        """The network's inputs at consecutive positions."""
        places, view_numbers = self.orders[split].locate(start, stop)
        return self.gather[split](self.passing[split][places], view_numbers)

    def _run(
        self, checkpoint: Checkpoint, cluster: Cluster | None
    ) -> list[str]:
        """Runs what is left; gives the layers that left their dtype's range."""
        if self.kept:
            total = sum(self.rows.values())
            say(f"{self._count_passing():,} of {total:,} images are new")
        segment = self.images
        if checkpoint.note["done"] < self.images:
            segment = self._announce(checkpoint, cluster)
        overflowed = set(checkpoint.note["overflowed"])
        starts = self._find_starts(checkpoint, cluster)
        done = sum(starts.values())
        with progress(self.images, self.label, "images", done) as bar:
            portions = (
                self._run_there(checkpoint, starts, bar, cluster)
                if cluster
                else self._run_here(checkpoint, starts, bar, segment)
            )
            for split, stop, writers in portions:
                overflowed |= {
                    layer
                    for layer, writer in zip(self.layers, writers, strict=True)
                    if writer.overflowed
                }
                progressed = {
                    "done": count_before(self.orders, split) + stop,
                    "overflowed": sorted(overflowed),
                }
                checkpoint.write(**checkpoint.note | progressed)
        return sorted(overflowed)

    def _run_here(
        self,
        checkpoint: Checkpoint,
        starts: dict[str, int],
        bar: Bar,
        segment: int,
    ) -> Iterator[Portion]:
        """Runs `segment` positions at a time on this machine."""
        for split, order in self.orders.items():
            if starts[split] == len(order):
                continue
            writers = self._open_writers(checkpoint, split)
            for start in range(starts[split], len(order), segment):
                stop = min(start + segment, len(order))
                self.network.run(
                    partial(self._load, split),
                    stop,
                    writers,
                    bar.update,
                    self.network.get_precision(split),
                    start,
                )
                yield split, stop, writers

    def _run_there(
        self,
        checkpoint: Checkpoint,
        starts: dict[str, int],
        bar: Bar,
        cluster: Cluster,
    ) -> Iterator[Portion]:
        """Has a cluster run blocks; writes what comes back."""
        job = Job(
            cast("Mapping[str, PortableGather]", self.gather),
            self.orders,
            self.passing,
            {split: self.network.get_precision(split) for split in self.orders},
            {
                split: [self.get_dtype(layer, split) for layer in self.layers]
                for split in self.orders
            },
        )
        opened: dict[str, list[ActivationWriter]] = {}
        for split, start, results in cluster.run(self.network, job, starts):
            if split not in opened:
                opened = {split: self._open_writers(checkpoint, split)}
            count = len(results[0])
            for writer, values in zip(opened[split], results, strict=True):
                writer[start : start + count] = values
            bar.update(count)
            yield split, start + count, opened[split]

    def _open_writers(
        self, checkpoint: Checkpoint, split: str
    ) -> list[ActivationWriter]:
        """One for each layer."""
        return [
            ActivationWriter(
                list_paths(checkpoint.folder, layer, split, self.views),
                self.orders[split],
                self.passing[split],
            )
            for layer in self.layers
        ]

    def _widen(self, overflowed: list[str]) -> dict[str, str]:
        """The layers, some of them in float32.

        Raises:
            InputError: where one of them is in float32 already.
        """
        names = ", ".join(overflowed)
        if any(self.layers[layer] == "float32" for layer in overflowed):
            raise InputError(
                f"{names} gives values that are not finite: the backbone's "
                "weights are broken"
            )
        say(f"{names} leaves float16's range: once more, in float32")
        return self.layers | dict.fromkeys(overflowed, "float32")
