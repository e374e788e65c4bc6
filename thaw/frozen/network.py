"""The frozen part of the network, on the fastest engine there is."""

import math
from importlib.util import find_spec

import numpy as np

from thaw.frozen.engines import KerasEngine, Network, OpenVINOEngine
from thaw.network.backend import has_accelerator, keras, sees_gpu


class FrozenNetwork(Network):
    """A Keras model that only predicts: OpenVINO on a CPU, else Keras.

    Args:
        model: a functional model of one input.
        precision: "float32", "bfloat16" or "auto", bfloat16 where the
            engine and the processor have it.
        dtype: of the input; conversion to float32 is part of the network.
        asked_as: where a user says the precision.

    Attributes:
        input_bytes: of one row.

    Raises:
        InputError: where a precision is asked for that can't be had.
    """

    def __init__(
        self,
        model: keras.Model,
        precision: str,
        dtype: str,
        asked_as: str = "extract.precision",
    ):
        if can_use_openvino():
            size = OpenVINOEngine.batch_size
            engine = OpenVINOEngine(convert_to_openvino(model, dtype, size))
        else:
            engine = KerasEngine(model, has_accelerator())
        super().__init__(engine, [x.shape[1:] for x in model.outputs])
        if precision == "auto":
            precision = self.precisions[-1]
        self.check_precision(precision, name=asked_as)
        self.precision = precision
        shape = model.input_shape[1:]
        self.input_bytes = math.prod(shape) * np.dtype(dtype).itemsize


def can_use_openvino() -> bool:
    """Whether OpenVINO is there and Keras, on TensorFlow, sees no GPU."""
    on_tensorflow = keras.backend.backend() == "tensorflow"
    return on_tensorflow and bool(find_spec("openvino")) and not sees_gpu()


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
