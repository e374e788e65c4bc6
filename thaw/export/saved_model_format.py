"""TensorFlow's SavedModel: a folder, for TensorFlow Serving among others."""

from pathlib import Path

import numpy as np

from thaw.export.classifier import hold_variables, trace_classifier
from thaw.export.contract import INPUT, OUTPUT, Format, Predict
from thaw.network.backend import keras
from thaw.network.model_info import INFO_FILE, ModelInfo

# TensorFlow leaves this folder to its users.
EXTRA = "assets.extra"


def write(path: Path, model: keras.Model, info: ModelInfo) -> None:
    import tensorflow

    predict = trace_classifier(model, info, antialias=True)
    tensorflow.saved_model.save(hold_variables(model), path, signatures=predict)
    (path / "fingerprint.pb").unlink()  # has a random part, and no reader
    (path / EXTRA).mkdir()
    (path / EXTRA / INFO_FILE).write_text(info.to_json(), "utf-8")


def open_runtime(path: Path) -> Predict:
    import tensorflow

    loaded = tensorflow.saved_model.load(str(path))

    def predict(images: np.ndarray) -> np.ndarray:
        # `loaded` keeps the variables, which its signature alone would not.
        serve = loaded.signatures["serving_default"]
        return serve(**{INPUT: tensorflow.constant(images)})[OUTPUT].numpy()

    return predict


FORMAT = Format("saved_model", write, open_runtime)
