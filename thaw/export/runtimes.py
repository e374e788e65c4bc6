"""Exports, each run by its own runtime."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from thaw.export.formats import INPUT, OUTPUT, PATHS
from thaw.run.console import without_chatter
from thaw.run.threads import count_cores

# Images (n, H, W, 3) uint8 to probabilities (n, classes) float32.
Predict = Callable[[np.ndarray], np.ndarray]


def open_keras(path: Path) -> Predict:
    from thaw.network.backend import keras

    model = keras.models.load_model(path, compile=False)
    return model.predict_on_batch


def open_saved_model(path: Path) -> Predict:
    import tensorflow

    loaded = tensorflow.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]

    def predict(images: np.ndarray) -> np.ndarray:
        return serve(**{INPUT: tensorflow.constant(images)})[OUTPUT].numpy()

    predict.loaded = loaded  # its variables live as long as it does
    return predict


def open_onnx(path: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def open_litert(path: Path) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=count_cores())
    interpreter.allocate_tensors()  # says that it does
    (given,) = interpreter.get_input_details()
    (made,) = interpreter.get_output_details()

    def predict(images: np.ndarray) -> np.ndarray:
        shape = (1, *images.shape[1:])
        interpreter.resize_tensor_input(given["index"], shape)
        interpreter.allocate_tensors()
        rows = []
        for image in images:
            interpreter.set_tensor(given["index"], image[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(made["index"])[0])
        return np.array(rows)

    return predict


def open_openvino(path: Path) -> Predict:
    import openvino

    # Where the processor has it, bfloat16 is the default.
    network = openvino.Core().compile_model(
        path / "classifier.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return lambda images: network(images)[OUTPUT]


OPENERS = {
    "keras": open_keras,
    "saved_model": open_saved_model,
    "onnx": open_onnx,
    "litert": open_litert,
    "openvino": open_openvino,
}


def open_export(folder: Path, name: str) -> Predict:
    """One of the exports in a folder."""
    with without_chatter():
        return OPENERS[name](folder / PATHS[name])
