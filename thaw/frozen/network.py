"""A frozen network, on the fastest engine there is.

A worker on another machine unpacks one and runs it. Keras is imported only
where it is the engine, or where a Keras model is frozen.
"""

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from thaw.errors import InputError
from thaw.files.text import read_json, write_json
from thaw.run.efficientnet import IMAGE
from thaw.run.threads import map_ahead

if TYPE_CHECKING:
    from thaw.network.backend import keras

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
        self.check_precision(asked, name=name)
        self.precision = asked
        return self

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


def freeze_model(
    model: "keras.Model",
    precision: str,
    dtype: str,
    asked_as: str = "extract.precision",
    start: str = IMAGE,
) -> FrozenNetwork:
    """A Keras model as a frozen network: OpenVINO on a CPU, else Keras.

    Args:
        model: a functional model of one input.
        precision: "float32", "bfloat16" or "auto", the faster one here.
        dtype: of the input; the network converts it to float32.
        asked_as: where a user says the precision.
        start: the layer that the input is the output of.

    Raises:
        InputError: where a precision is asked for that can't be had.
    """
    engine: Engine
    if can_use_openvino():
        from thaw.frozen.openvino import freeze_in_openvino

        engine = freeze_in_openvino(model, dtype)
    else:
        from thaw.frozen.keras import KerasEngine
        from thaw.network.backend import has_accelerator

        engine = KerasEngine(model, has_accelerator())
    shapes = [output.shape[1:] for output in model.outputs]
    network = FrozenNetwork(
        engine,
        dict(zip(model.output_names, shapes, strict=True)),
        model.input_shape[1:],
        dtype,
        start,
    )
    return network.use_precision(precision, asked_as)


def can_use_openvino() -> bool:
    """Whether OpenVINO is there and Keras, on TensorFlow, sees no GPU."""
    from thaw.network.backend import keras, sees_gpu

    on_tensorflow = keras.backend.backend() == "tensorflow"
    return on_tensorflow and bool(find_spec("openvino")) and not sees_gpu()


def read_network(
    folder: str | Path, threads: int | None = None
) -> FrozenNetwork:
    """The network that `FrozenNetwork.write` wrote, on the same engine.

    Args:
        folder: that it was written to.
        threads: that OpenVINO uses; None for all cores.
    """
    about = read_json(Path(folder, ABOUT))
    engine: Engine
    if about.pop("kind") == "openvino":
        if not find_spec("openvino"):
            raise InputError(
                f"{folder} is a network of OpenVINO, which is not installed"
            )
        from thaw.frozen.openvino import read_openvino

        engine = read_openvino(Path(folder), threads)
    else:
        from thaw.frozen.keras import read_keras

        engine = read_keras(Path(folder))
    return FrozenNetwork(engine, **about)


def unpack_network(
    files: Mapping[str, bytes], threads: int | None = None
) -> FrozenNetwork:
    """As `read_network`, of what `FrozenNetwork.pack` gave."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        return read_network(folder, threads)
