"""Running the frozen part of the network, on the fastest engine there is."""

import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from threading import Lock

import numpy as np

from thaw.backend import keras
from thaw.errors import InputError
from thaw.threads import count_cores, map_ahead

# OpenVINO reports every conversion, and keeps an identity in $HOME, unless the
# package that does so can't be imported; it then uses its own stub.
sys.modules["openvino_telemetry"] = None

BATCHES_AHEAD = 8  # made by threads while the network runs


# Gives start and stop of a batch, and its inputs.
Batch = tuple[tuple[int, int], np.ndarray]


class FrozenNetwork:
    """A Keras model that only predicts: OpenVINO on a CPU, else Keras.

    Args:
        model: a functional model of one input.
        precision: "float32", "bfloat16" or "auto", bfloat16 where the
            engine and the processor have it.
        dtype: of the input; conversion to float32 is part of the network.

    Attributes:
        outputs: the shape of each output, without the batch.
        engine: what runs it, for people.
        batch_size: that it runs in.
        precision: "float32" or "bfloat16".

    Raises:
        InputError: where a precision is asked for that can't be had.
    """

    def __init__(self, model: keras.Model, precision: str, dtype: str):
        self.outputs = [tensor.shape[1:] for tensor in model.outputs]
        if can_use_openvino():
            self._engine = OpenVINOEngine(model, dtype)
        else:
            self._engine = KerasEngine(model)
        self._lock = Lock()  # training and validation may both be fed
        self.engine = self._engine.name
        self.batch_size = self._engine.batch_size
        offered = self._engine.precisions
        if precision not in ("auto", *offered):
            raise InputError(
                f"extract.precision is {precision}; allowed on {self.engine} "
                f"here: auto, {', '.join(offered)}"
            )
        self.precision = offered[-1] if precision == "auto" else precision

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
    """Whatever backend and device Keras has."""

    batch_size = 64  # an accelerator wants many

    def __init__(self, model: keras.Model):
        self.name = f"keras {keras.__version__}"
        self.precisions = ["float32"]
        self._model = model

    def run(self, batches: Iterable[Batch], store, precision) -> None:
        for span, batch in batches:
            results = self._model.predict_on_batch(batch.astype(np.float32))
            store(span, results if isinstance(results, list) else [results])


class OpenVINOEngine:
    """The CPU, all cores, several batches under way at once."""

    batch_size = 8  # keeps a core busy; larger ones gain nothing

    def __init__(self, model: keras.Model, dtype: str):
        import openvino

        self._core = openvino.Core()
        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precisions = ["float32"] + ["bfloat16"] * ("BF16" in able)
        self._network = convert_to_openvino(model, dtype, self.batch_size)
        self._queues = {}

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
                    "INFERENCE_NUM_THREADS": count_cores(),
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


def can_use_openvino() -> bool:
    """Whether OpenVINO is there and Keras, on TensorFlow, sees no GPU."""
    if keras.backend.backend() != "tensorflow" or not find_spec("openvino"):
        return False
    import tensorflow

    return not tensorflow.config.list_physical_devices("GPU")


def convert_to_openvino(model: keras.Model, dtype: str, batch_size: int):
    """The same network, in memory, for inputs (batch_size, *shape)."""
    import openvino
    import tensorflow
    from openvino.frontend.tensorflow import utils as frontend

    signature = tensorflow.TensorSpec(
        (batch_size, *model.input_shape[1:]), dtype
    )

    @tensorflow.function(input_signature=[signature])
    def predict(batch):
        outputs = model(tensorflow.cast(batch, "float32"), training=False)
        # Names keep OpenVINO from listing inner tensors as outputs as well.
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return {f"output_{i:02d}": output for i, output in enumerate(outputs)}

    # OpenVINO asks for TensorFlow's version in a way that Python 3.13 ended:
    # it deletes by exec what another exec imported.
    frontend.get_environment_setup = lambda framework: {
        "tensorflow": tensorflow.__version__
    }
    converted = openvino.convert_model(predict.get_concrete_function())
    names = [output.get_any_name() for output in converted.outputs]
    if names != sorted(names) or len(names) != len(model.outputs):
        raise RuntimeError(f"OpenVINO lists other outputs: {names}")
    return converted
