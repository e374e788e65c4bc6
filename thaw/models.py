"""Heads, whole models, and files of them."""

import json
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thaw.backend import keras
from thaw.console import without_chatter
from thaw.errors import InputError
from thaw.files import check_archive, new_file
from thaw.parts import LOGITS, POOLED

# In the zip of a .keras file; Keras keeps away from what is in assets/.
ABOUT = "assets/thaw.json"


# Pooled features vary little, the faintest least: by 0.01 to 0.08 in B4. What
# is added to their variance keeps BatchNormalization from making those as loud
# as all others: 100 photographs are learnt from far better.
EPSILON = 0.1


def build_head(features: int, classes: int, dropout: float) -> keras.Model:
    """Pooled features (n, features) to probabilities (n, classes)."""
    pooled = keras.Input((features,), name=POOLED)
    x = keras.layers.BatchNormalization(epsilon=EPSILON, name="head_bn")(pooled)
    x = keras.layers.Dropout(dropout, name="head_dropout")(x)
    x = keras.layers.Dense(classes, name=LOGITS)(x)
    probabilities = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(pooled, probabilities, name="head")


def standardize_head(head: keras.Model, views: Sequence[np.ndarray]) -> None:
    """Starts BatchNormalization with the statistics of all training features.

    Keras's start, mean 0 and variance 1, takes hundreds of steps to forget:
    more than a small set has.

    Args:
        head: from `build_head`.
        views: (n, features) each.
    """
    mean = np.mean([view.mean(axis=0) for view in views], axis=0)
    square = np.mean([np.square(view).mean(axis=0) for view in views], axis=0)
    normalization = head.get_layer("head_bn")
    normalization.moving_mean.assign(mean)
    normalization.moving_variance.assign(np.maximum(square - mean**2, 0))


def join_head(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """One flat model, images (n, H, W, 3) to probabilities (n, classes).

    Its layers are the backbone's own and copies of the head's, whose
    BatchNormalization is frozen like every other one.

    Raises:
        InputError: where the head is not one of `build_head`.
    """
    own = build_head(*head.input_shape[1:], *head.output_shape[1:], 0.0)
    layers = [(layer.name, type(layer)) for layer in head.layers]
    if layers != [(layer.name, type(layer)) for layer in own.layers]:
        names = ", ".join(name for name, _ in layers)
        raise InputError(f"the head has other layers than ours: {names}")
    own.get_layer("head_bn").epsilon = head.get_layer("head_bn").epsilon
    own.get_layer("head_dropout").rate = head.get_layer("head_dropout").rate
    own.set_weights(head.get_weights())
    x = backbone.output
    for layer in own.layers[1:]:
        copy = type(layer).from_config(layer.get_config())
        x = copy(x)
        copy.set_weights(layer.get_weights())
        if isinstance(copy, keras.layers.BatchNormalization):
            copy.trainable = False
    return keras.Model(backbone.input, x, name=f"{backbone.name}_finetuned")


def seed_dropout(model: keras.Model, seed: int) -> None:
    """Seeds every drop layer anew, however the model came about."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            state = rng.integers(2**32, size=2, dtype=np.uint32)
            layer.seed_generator.state.assign(state)


def load_model(
    path: str | Path, shape: Sequence[int], classes: int
) -> keras.Model:
    """A model from a file that may be anyone's; nothing in it is executed.

    Args:
        path: a .keras file.
        shape: of one input.
        classes: number of outputs.

    Raises:
        InputError: where Keras can't read the file or would have to run what
            is in it, or where it holds another model.
    """
    try:
        check_archive(path)
        with without_chatter(), warnings.catch_warnings(action="ignore"):
            model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} can't be loaded: {reason}") from error
    found = (
        getattr(model, "input_shape", None),
        getattr(model, "output_shape", None),
    )
    if found != ((None, *shape), (None, classes)):
        raise InputError(
            f"{path} is a model from {found[0]} to {found[1]}; from "
            f"{(None, *shape)} to {(None, classes)} is needed"
        )
    return model


def save_model(model: keras.Model, path: str | Path, **about: Any) -> None:
    """Writes a .keras file; the same model gives the same bytes.

    Keras writes the date into metadata.json, addresses of objects into
    config.json, and times into the zip's directory.

    Args:
        model: any.
        path: the file.
        about: what travels with it, where Keras leaves it alone; `read_about`
            gives it back.
    """
    with tempfile.TemporaryDirectory() as folder, new_file(path) as unfinished:
        dated = Path(folder, "model.keras")
        with without_chatter():  # on any backend this imports TensorFlow
            keras.saving.save_model(model, dated)
        with (
            zipfile.ZipFile(dated) as given,
            zipfile.ZipFile(unfinished, "w") as written,
        ):
            for name in sorted(given.namelist()):
                data = given.read(name)
                if name.endswith(".json"):
                    data = json.dumps(_drop_volatile(json.loads(data))).encode()
                written.writestr(zipfile.ZipInfo(name), data)
            text = json.dumps(about, indent=2, ensure_ascii=False)
            written.writestr(zipfile.ZipInfo(ABOUT), text)


def read_about(path: str | Path) -> dict[str, Any]:
    """What `save_model` was told of a model: classes, temperature and more.

    Raises:
        InputError: where the file was written by something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(ABOUT))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(
            f"{path} does not say which classes it knows; a .keras file that "
            "Thaw wrote is needed"
        ) from error


def _drop_volatile(value):
    if isinstance(value, list):
        return [_drop_volatile(item) for item in value]
    if isinstance(value, dict):
        return {
            key: _drop_volatile(item)
            for key, item in value.items()
            if key not in ("date_saved", "shared_object_id")
        }
    return value
