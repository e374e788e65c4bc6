"""A frozen network, on the fastest engine there is.

A worker on another machine unpacks one and runs it. Keras is imported only
where it is the engine, or where a Keras model is frozen.
"""

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from thaw.errors import InputError
from thaw.files.text import write_json
from thaw.files.threads import map_ahead
from thaw.run.console import say

if TYPE_CHECKING:
    pass

# Of what a batch comes out as in float32, by which "auto" lets it differ:
# bfloat16 differs by 0.01 to 0.03 where it is computed right.
MOST_ERROR = 0.1

BATCHES_AHEAD = 8  # made by threads while the network runs

# Beside an engine's own files, what else a network is.
ABOUT = "about.json"

# Start and stop of the rows of a batch.
Span = tuple[int, int]


class Engine(Protocol):
    """What runs a network in batches of one size.

    Attributes:
        kind: "openvino" or "keras".
        name: with its version, for people.
        batch_size: of all inputs.
        precisions: that the engine has here, the fastest last.
        uses_cpu: whether it runs on the CPU, whatever else there is.
    """

    kind: str
    name: str
    batch_size: int
    precisions: list[str]
    uses_cpu: bool

    def write(self, folder: Path) -> None:
        """Writes the files that the network is read from again."""

    def take(self, start: str, ends: Sequence[str], dtype: str) -> "Engine":
        """The part from one of the network's layers to some others.

        Args:
            start: an output of this network; "" for its input.
            ends: outputs behind it.
            dtype: of the part's input.
        """

    def join(self, behind: "Engine") -> "Engine":
        """This network and one that takes its only output, as one."""

    def run(
        self,
        batches: Iterable[tuple[Span, np.ndarray]],
        store: Callable[[Span, list[np.ndarray]], None],
        precision: str,
    ) -> None:
        """Calls `store` with the outputs of each batch, in any order."""


class FrozenNetwork:
    """A network that only predicts, for any number of rows.

    Args:
        engine: what runs it.
        layers: name of each output's layer, to the output's shape, without the
            batch.
        input_shape: without the batch.
        dtype: of the input.
        start: the layer that the input is the output of.

    Attributes:
        engine, kind: the engine's name and kind.
        outputs: shapes.
        input_bytes: of one row.
        batch_size, precisions, uses_cpu: the engine's.
        precision: of those, the one it runs in unless told otherwise.
    """

    def __init__(
        self,
        engine: Engine,
        layers: Mapping[str, Sequence[int]],
        input_shape: Sequence[int],
        dtype: str,
        start: str,
    ):
        self._engine, self.start = engine, start
        self.input_shape, self.dtype = tuple(input_shape), dtype
        self.layers = {name: tuple(shape) for name, shape in layers.items()}
        self.outputs = list(self.layers.values())
        self.input_bytes = math.prod(input_shape) * np.dtype(dtype).itemsize
        self._lock = Lock()  # training and validation may both be fed
        self.engine, self.kind = engine.name, engine.kind
        self.batch_size = engine.batch_size
        self.precisions = engine.precisions
        self.uses_cpu = engine.uses_cpu
        self.precision = "float32"

    def use_precision(
        self, asked: str, name: str = "extract.precision"
    ) -> Self:
        """Runs in this precision from now on.

        Args:
            asked: "float32", "bfloat16" or "auto", the faster one here.
            name: where a user says it.

        Raises:
            InputError: where it can't be had.
        """
        if asked == "auto":
            asked = self.precisions[-1]
            if asked != "float32" and not self._computes_alike(asked):
                say(
                    f"{asked} computes wrong numbers on this processor: "
                    "float32 instead"
                )
                asked = "float32"
        self.check_precision(asked, name=name)
        self.precision = asked
        return self

    def _computes_alike(self, precision: str) -> bool:
        """Whether a batch of noise comes out as in float32, nearly."""
        rng = np.random.default_rng(0)
        shape = (self.batch_size, *self.input_shape)
        batch = rng.integers(0, 256, shape).astype(self.dtype)
        if np.dtype(self.dtype).kind == "f":  # activations, not pixels
            batch = rng.standard_normal(shape).astype(self.dtype)
        wanted, found = (
            self._run_batch(batch, x) for x in ("float32", precision)
        )
        return all(
            np.linalg.norm(a - b) <= MOST_ERROR * np.linalg.norm(a)
            for a, b in zip(wanted, found, strict=True)
        )

    def _run_batch(self, batch: np.ndarray, precision: str) -> list[np.ndarray]:
        outs = [
            np.empty((len(batch), *shape), np.float32) for shape in self.outputs
        ]
        self.run(
            lambda start, stop: batch[start:stop],
            len(batch),
            outs,
            precision=precision,
        )
        return outs

    def check_precision(
        self, *precisions: str, name: str = "extract.precision"
    ) -> None:
        """Raises InputError for one that can't be had, asked for as `name`."""
        for precision in precisions:
            if precision not in self.precisions:
                raise InputError(
                    f"{name} is {precision}; allowed on "
                    f"{self.engine} here: auto, {', '.join(self.precisions)}"
                )

    def get_precision(self, split: str) -> str:
        """Its own for train; float32 for the others.

        Validation and test run in float32, as the shipped model does.
        """
        return self.precision if split == "train" else "float32"

    def take(
        self, start: str, *ends: str, dtype: str = "uint8"
    ) -> "FrozenNetwork":
        """The part from one layer to others, in this network's precision.

        Args:
            start: this network's own, or the layer of an output.
            ends: layers of outputs behind it.
            dtype: of the part's input.
        """
        own = start == self.start
        part = FrozenNetwork(
            self._engine.take("" if own else start, ends, dtype),
            {end: self.layers[end] for end in ends},
            self.input_shape if own else self.layers[start],
            dtype,
            start,
        )
        part.precision = self.precision
        return part

    def join(self, behind: "FrozenNetwork") -> "FrozenNetwork":
        """This network and one that takes its only output, as one."""
        return FrozenNetwork(
            self._engine.join(behind._engine),
            behind.layers,
            self.input_shape,
            self.dtype,
            self.start,
        )

    def write(self, folder: str | Path) -> None:
        """Writes what `read_network` reads."""
        self._engine.write(Path(folder))
        write_json(
            Path(folder, ABOUT),
            {
                "kind": self._engine.kind,
                "layers": self.layers,
                "input_shape": self.input_shape,
                "dtype": self.dtype,
                "start": self.start,
            },
        )

    def pack(self) -> dict[str, bytes]:
        """What `unpack_network` reads, on its way to another process."""
        with tempfile.TemporaryDirectory() as folder:
            self.write(folder)
            return {
                path.name: path.read_bytes() for path in Path(folder).iterdir()
            }

    def run(
        self,
        load: Callable[[int, int], np.ndarray],
        stop: int,
        outs: Sequence,
        advance: Callable[[int], object] = lambda count: None,
        precision: str | None = None,
        start: int = 0,
    ) -> None:
        """Fills `outs` with the outputs for the rows from `start` to `stop`.

        Args:
            load: takes start and stop of a batch, gives its inputs; runs on
                threads.
            stop: the row behind the last one.
            outs: for each output an array (stop, *shape), or what takes slices
                of rows as an array does.
            advance: takes the number of rows just done.
            precision: another one than the network's own.
            start: the first row.
        """
        size = self.batch_size

        def make(span: Span) -> tuple[Span, np.ndarray]:
            batch = load(*span)
            if len(batch) < size:
                batch = np.resize(batch, (size, *batch.shape[1:]))
            return span, batch

        def store(span: Span, results: list[np.ndarray]) -> None:
            first, last = span
            for out, result in zip(outs, results, strict=True):
                out[first:last] = result[: last - first]
            advance(last - first)

        spans = (
            (first, min(first + size, stop))
            for first in range(start, stop, size)
        )
        with self._lock:
            self._engine.run(
                map_ahead(make, spans, ahead=BATCHES_AHEAD),
                store,
                precision or self.precision,
            )
