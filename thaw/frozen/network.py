"""A frozen network, on the fastest engine there is.

A worker on another machine unpacks one and runs it. Keras is imported only
where it is the engine, or where a Keras model is frozen.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np

from thaw.errors import InputError
from thaw.run.threads import map_ahead

if TYPE_CHECKING:
    from thaw.network.backend import keras

BATCHES_AHEAD = 8  # made by threads while the network runs

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

    def pack(self) -> dict[str, bytes]:
        """Files, by name, that the network is read from again."""

    def run(
        self,
        batches: Iterable[tuple[Span, np.ndarray]],
        store: Callable[[Span, list[np.ndarray]], None],
        precision: str,
    ) -> None:
        """Calls `store` with the outputs of each batch, in any order."""


@dataclass(frozen=True)
class Packed:
    """A network on its way to another process.

    Attributes:
        kind: of the engine.
        files: as the engine packs them.
        outputs, input_bytes: as `FrozenNetwork` has them.
    """

    kind: str
    files: dict[str, bytes]
    outputs: list[tuple[int, ...]]
    input_bytes: int


class FrozenNetwork:
    """A network that only predicts, for any number of rows.

    Args:
        engine: what runs it.
        outputs: the shape of each output, without the batch.
        input_bytes: of one row.

    Attributes:
        engine: the engine's name.
        batch_size, precisions, uses_cpu: the engine's.
        precision: of those, the one it runs in unless told otherwise.
    """

    def __init__(
        self,
        engine: Engine,
        outputs: Sequence[tuple[int, ...]],
        input_bytes: int,
    ):
        self._engine, self.outputs = engine, list(outputs)
        self.input_bytes = input_bytes
        self._lock = Lock()  # training and validation may both be fed
        self.engine = engine.name
        self.batch_size = engine.batch_size
        self.precisions = engine.precisions
        self.uses_cpu = engine.uses_cpu
        self.precision = "float32"

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

    def pack(self) -> Packed:
        engine = self._engine
        return Packed(
            engine.kind, engine.pack(), self.outputs, self.input_bytes
        )

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


def freeze_model(
    model: "keras.Model",
    precision: str,
    dtype: str,
    asked_as: str = "extract.precision",
) -> FrozenNetwork:
    """A Keras model as a frozen network: OpenVINO on a CPU, else Keras.

    Args:
        model: a functional model of one input.
        precision: "float32", "bfloat16" or "auto", the faster one here.
        dtype: of the input; the network converts it to float32.
        asked_as: where a user says the precision.

    Raises:
        InputError: where a precision is asked for that can't be had.
    """
    engine: Engine
    if can_use_openvino():
        from thaw.frozen.openvino import OpenVINOEngine, convert_to_openvino

        size = OpenVINOEngine.batch_size
        engine = OpenVINOEngine(convert_to_openvino(model, dtype, size))
    else:
        from thaw.frozen.keras import KerasEngine
        from thaw.network.backend import has_accelerator

        engine = KerasEngine(model, has_accelerator())
    network = FrozenNetwork(
        engine,
        outputs=[output.shape[1:] for output in model.outputs],
        input_bytes=math.prod(model.input_shape[1:]) * np.dtype(dtype).itemsize,
    )
    if precision == "auto":
        precision = network.precisions[-1]
    network.check_precision(precision, name=asked_as)
    network.precision = precision
    return network


def can_use_openvino() -> bool:
    """Whether OpenVINO is there and Keras, on TensorFlow, sees no GPU."""
    from thaw.network.backend import keras, sees_gpu

    on_tensorflow = keras.backend.backend() == "tensorflow"
    return on_tensorflow and bool(find_spec("openvino")) and not sees_gpu()


def unpack_network(packed: Packed, threads: int | None = None) -> FrozenNetwork:
    """The network again, on the same engine.

    Args:
        packed: from `FrozenNetwork.pack`.
        threads: that OpenVINO uses; None for all cores.
    """
    engine: Engine
    if packed.kind == "openvino":
        from thaw.frozen.openvino import read_openvino

        engine = read_openvino(packed.files, threads)
    else:
        from thaw.frozen.keras import read_keras

        engine = read_keras(packed.files)
    return FrozenNetwork(engine, packed.outputs, packed.input_bytes)
