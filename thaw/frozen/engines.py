"""Which engine runs a frozen network: OpenVINO on a CPU, else Keras."""

import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.data.efficientnet import IMAGE
from thaw.errors import InputError
from thaw.files.text import read_json
from thaw.frozen.network import ABOUT, Engine, FrozenNetwork

if TYPE_CHECKING:
    from thaw.network.backend import keras


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
