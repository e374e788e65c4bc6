"""What runs a frozen network, on this machine or as a worker's part.

Nothing here needs Keras or TensorFlow unless Keras itself is the engine.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from thaw.errors import InputError
from thaw.run.threads import count_cores, map_ahead

BATCHES_AHEAD = 8  # made by threads while the network runs


# Gives start and stop of a batch, and its inputs.
Batch = tuple[tuple[int, int], np.ndarray]


@dataclass(frozen=True)
class Packed:
    """A network on its way to another process.

    Attributes:
        engine: "openvino" or "keras".
        files: name to content, as the engine writes them.
        outputs: shapes, as in `Network`.
    """

    engine: str
    files: dict[str, bytes]
    outputs: list[tuple[int, ...]]


class Network:
    """An engine that runs a network over any number of rows.

    Attributes:
        outputs: the shape of each output, without the batch.
        engine: what runs it, for people.
        batch_size: that it runs in.
        precisions: that can be had, the fastest last.
        precision: of those, the one it runs in unless told otherwise.
    """

    def __init__(self, engine, outputs: list[tuple[int, ...]]):
        self._engine, self.outputs = engine, outputs
        self._lock = Lock()  # training and validation may both be fed
        self.engine = engine.name
        self.batch_size = engine.batch_size
        self.precisions = engine.precisions
        self.precision = "float32"
        self.uses_cpu = isinstance(engine, OpenVINOEngine)

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

    def pack(self) -> Packed:
        with tempfile.TemporaryDirectory() as folder:
            self._engine.write(Path(folder))
            files = {f.name: f.read_bytes() for f in Path(folder).iterdir()}
        return Packed(self._engine.kind, files, self.outputs)

    def run(
        self,
        load: Callable[[int, int], np.ndarray],
        rows: int,
        outs: list[np.ndarray],
        advance: Callable[[int], object] = lambda count: None,
        precision: str | None = None,
    ) -> None:
        """Fills `outs` with the outputs for all rows.

        Args:
            load: start and stop of a batch to its inputs; called on threads.
            rows: how many there are.
            outs: for each output an array (rows, *shape), or what takes slices
                of rows as one does.
            advance: called with the number of rows just done.
            precision: another one than the network's own.
        """
        size = self.batch_size

        def make(span: tuple[int, int]) -> Batch:
            batch = load(*span)
            if len(batch) < size:
                batch = np.resize(batch, (size, *batch.shape[1:]))
            return span, batch

        def store(span: tuple[int, int], results: list[np.ndarray]) -> None:
            start, stop = span
            for out, result in zip(outs, results, strict=True):
                out[start:stop] = result[: stop - start]
            advance(stop - start)

        spans = (
            (start, min(start + size, rows)) for start in range(0, rows, size)
        )
        with self._lock:
            self._engine.run(
                map_ahead(make, spans, ahead=BATCHES_AHEAD),
                store,
                precision or self.precision,
            )


class KerasEngine:
    """Whatever backend and device Keras has.

    Args:
        model: that only predicts.
        accelerated: whether it runs on a GPU or TPU, where it is compiled and
            bfloat16 can be had.
    """

    kind, file = "keras", "model.keras"
    batch_size = 64  # an accelerator wants many

    def __init__(self, model: Any, accelerated: bool = False):
        from thaw.network.backend import keras

        self.name = f"keras {keras.__version__}"
        self.precisions = ["float32"] + ["bfloat16"] * accelerated
        self._models = {"float32": model}
        if accelerated:
            self._models["bfloat16"] = mix_precision(model)
            for each in self._models.values():
                each.compile(jit_compile=True)

    def write(self, folder: Path) -> None:
        self._models["float32"].save(folder / self.file)

    def run(self, batches: Iterable[Batch], store, precision) -> None:
        model = self._models[precision]
        for span, batch in batches:
            results = model.predict_on_batch(batch.astype(np.float32))
            results = results if isinstance(results, list) else [results]
            store(span, [np.asarray(x, np.float32) for x in results])


def mix_precision(model: Any) -> Any:
    """A copy of a Keras model that computes in bfloat16."""
    from thaw.network.backend import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        layer.dtype_policy = "mixed_bfloat16"
    return copy


class OpenVINOEngine:
    """The CPU, several batches under way at once.

    Args:
        network: an `openvino.Model` of inputs (batch_size, *shape).
        threads: None for all cores.
    """

    kind, files = "openvino", ("network.xml", "network.bin")
    batch_size = 8  # keeps a core busy; larger ones gain nothing

    def __init__(self, network: Any, threads: int | None = None):
        import openvino

        self._core = openvino.Core()
        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precisions = ["float32"] + ["bfloat16"] * ("BF16" in able)
        self.threads = threads or count_cores()
        self._network = network
        self._queues = {}

    def write(self, folder: Path) -> None:
        import openvino

        openvino.serialize(self._network, *(folder / x for x in self.files))

    def _get_queue(self, precision: str):
        import openvino

        if precision not in self._queues:
            hints = {"float32": "f32", "bfloat16": "bf16"}
            compiled = self._core.compile_model(
                self._network,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": hints[precision],
                    "PERFORMANCE_HINT": "THROUGHPUT",
                    "INFERENCE_NUM_THREADS": self.threads,
                },
            )
            self._queues[precision] = openvino.AsyncInferQueue(compiled)
        return self._queues[precision]

    def run(self, batches: Iterable[Batch], store, precision) -> None:
        failures = []

        def finish(request, span: tuple[int, int]) -> None:
            try:
                store(span, [out.data for out in request.output_tensors])
            except Exception as error:  # else OpenVINO loses it
                failures.append(error)

        queue = self._get_queue(precision)
        queue.set_callback(finish)
        try:
            for span, batch in batches:
                queue.start_async([batch], span)
        finally:
            queue.wait_all()
        if failures:
            raise failures[0]


def unpack_network(packed: Packed, threads: int | None = None) -> Network:
    """The network again, on the same engine; threads as that has them."""
    if packed.engine == OpenVINOEngine.kind:
        import openvino

        xml, weights = (packed.files[name] for name in OpenVINOEngine.files)
        model = openvino.Core().read_model(xml, weights)
        return Network(OpenVINOEngine(model, threads), packed.outputs)
    from thaw.network.backend import has_accelerator, keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, KerasEngine.file)
        path.write_bytes(packed.files[path.name])
        model = keras.models.load_model(path, compile=False)
    return Network(KerasEngine(model, has_accelerator()), packed.outputs)
