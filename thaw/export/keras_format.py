"""Keras: a .keras file of built-in layers, for any backend."""

from dataclasses import replace
from pathlib import Path

from thaw.export.classifier import scale_logits
from thaw.export.contract import INPUT, Format, Predict
from thaw.network.backend import keras
from thaw.network.model_file import save_model
from thaw.network.model_info import ModelInfo


def write(path: Path, model: keras.Model, info: ModelInfo) -> None:
    classifier = build_classifier(model, info)
    save_model(classifier, path, replace(info, any_size=True))


def build_classifier(model: keras.Model, info: ModelInfo) -> keras.Model:
    """Images (n, any height, any width, 3) to calibrated probabilities.

    Args:
        model: as in models/finetuned.keras.
        info: what travels with it.
    """
    images = keras.Input((None, None, 3), name=INPUT)
    x = keras.layers.Resizing(
        info.image_size,
        info.image_size,
        crop_to_aspect_ratio=info.fit == "crop",
        antialias=True,
    )(images)
    return keras.Model(images, scale_logits(model, info)(x), name="classifier")


def open_runtime(path: Path) -> Predict:
    model = keras.models.load_model(path, compile=False)
    return model.predict_on_batch


FORMAT = Format("classifier.keras", write, open_runtime)
