"""Running the frozen part of the network, on the fastest engine there is."""

import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from thaw.backend import keras
from thaw.threads import count_cores, map_ahead

# OpenVINO reports every conversion, and keeps an identity in $HOME, unless the
# package that does so can't be imported; it then uses its own stub.
sys.modules["openvino_telemetry"] = None

BATCH_SIZE = 8  # fills one core of a CPU; larger ones gain nothing


class FrozenNetwork:
    """A Keras model that only predicts: OpenVINO on a CPU, else Keras.

    Args:
        model: a functional model of one input.
        precision: "float32", "bfloat16" or "auto": bfloat16 where the
            processor has it. Keras alone runs in float32.
        dtype: of the input; conversion to float32 is part of the network.

    Attributes:
        engine: what runs it, for people.
        precision: "float32" or "bfloat16", what it runs in.
    """

    def __init__(self, model: keras.Model, precision: str, dtype: str):
        self.shape = model.input_shape[1:]
        self.outputs = [tensor.shape[1:] for tensor in model.outputs]
        self._model = model
        if can_use_openvino():
            self._compile_openvino(precision, dtype)
        else:
            self.engine = f"keras {keras.__version__}"
            self.precision = "float32"
            self.run = self._run_keras

    def _compile_openvino(self, precision: str, dtype: str) -> None:
        import openvino

        core = openvino.Core()
        has_bfloat16 = "BF16" in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        )
        if precision == "auto":
            precision = "bfloat16" if has_bfloat16 else "float32"
        self.engine = f"openvino {openvino.__version__.split('-')[0]}"
        self.precision = precision
        self._compiled = core.compile_model(
            convert_to_openvino(self._model, dtype),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": {
                    "float32": "f32",
                    "bfloat16": "bf16",
                }[precision],
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_NUM_THREADS": count_cores(),
            },
        )
        self._queue = openvino.AsyncInferQueue(self._compiled)
        self.run = self._run_openvino

    def predict(self, batch: np.ndarray) -> list[np.ndarray]:
        """All outputs for one batch of any size, (n, *shape) each, float32."""
        outs = [np.empty((len(batch), *s), np.float32) for s in self.outputs]
        self.run(lambda start, stop: batch[start:stop], len(batch), outs)
        return outs

    # `run(load, rows, outs, advance)`: both engines, the same contract.
    #
    # Args:
    #     load: start and stop of a batch to its rows; called on threads.
    #     rows: how many there are.
    #     outs: an array (rows, ...) for each output, filled in place.
    #     advance: called with the number of rows just done.

    def _run_openvino(
        self,
        load: Callable[[int, int], np.ndarray],
        rows: int,
        outs: list[np.ndarray],
        advance: Callable[[int], object] = lambda count: None,
    ) -> None:
        failures = []

        def store(request, span: tuple[int, int]) -> None:
            try:
                start, stop = span
                for out, tensor in zip(
                    outs, request.output_tensors, strict=True
                ):
                    out[start:stop] = tensor.data[: stop - start]
            except Exception as error:  # else OpenVINO loses it
                failures.append(error)

        self._queue.set_callback(store)
        for span, batch in self._load_ahead(load, rows):
            count = len(batch)
            if count < BATCH_SIZE:
                batch = np.resize(batch, (BATCH_SIZE, *self.shape))
            self._queue.start_async([batch], span)
            advance(count)
        self._queue.wait_all()
        if failures:
            raise failures[0]

    def _run_keras(
        self,
        load: Callable[[int, int], np.ndarray],
        rows: int,
        outs: list[np.ndarray],
        advance: Callable[[int], object] = lambda count: None,
    ) -> None:
        for (start, stop), batch in self._load_ahead(load, rows):
            results = self._model.predict_on_batch(batch.astype(np.float32))
            if len(outs) == 1 and not isinstance(results, list):
                results = [results]
            for out, result in zip(outs, results, strict=True):
                out[start:stop] = result
            advance(len(batch))

    def _load_ahead(self, load, rows: int):
        spans = [
            (start, min(start + BATCH_SIZE, rows))
            for start in range(0, rows, BATCH_SIZE)
        ]
        return map_ahead(lambda span: (span, load(*span)), spans, ahead=8)


def can_use_openvino() -> bool:
    """Whether OpenVINO is there and Keras, on TensorFlow, sees no GPU."""
    if keras.backend.backend() != "tensorflow" or not find_spec("openvino"):
        return False
    import tensorflow

    return not tensorflow.config.list_physical_devices("GPU")


def convert_to_openvino(model: keras.Model, dtype: str):
    """The same network, in memory, for batches of `BATCH_SIZE`."""
    import openvino
    import tensorflow

    signature = tensorflow.TensorSpec(
        (BATCH_SIZE, *model.input_shape[1:]), dtype
    )

    @tensorflow.function(input_signature=[signature])
    def predict(batch):
        outputs = model(tensorflow.cast(batch, "float32"), training=False)
        # Names keep OpenVINO from listing inner tensors as outputs as well.
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return {f"output_{i:02d}": output for i, output in enumerate(outputs)}

    converted = openvino.convert_model(predict.get_concrete_function())
    names = [output.get_any_name() for output in converted.outputs]
    if names != sorted(names) or len(names) != len(model.outputs):
        raise RuntimeError(f"OpenVINO lists other outputs: {names}")
    return converted
