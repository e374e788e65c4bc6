"""Models as .keras files."""

import json
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from thaw.errors import InputError
from thaw.files.archives import check_archive
from thaw.files.atomic import new_file
from thaw.network.backend import keras
from thaw.network.model_info import INFO_MEMBER, ModelInfo
from thaw.run.console import without_chatter

# What models of Thaw are made of: modules, and classes of each.
ALLOWED = {
    "keras": {"DTypePolicy"},
    "keras.initializers": {"GlorotUniform", "Ones", "VarianceScaling", "Zeros"},
    "keras.layers": {
        "Activation", "Add", "BatchNormalization", "Concatenate", "Conv2D",
        "Dense", "DepthwiseConv2D", "Dropout", "GlobalAveragePooling2D",
        "Identity", "InputLayer", "Multiply", "Normalization", "Rescaling",
        "Reshape", "Resizing", "Softmax", "ZeroPadding2D",
    },
    "keras.src.models.functional": {"Functional"},
    "keras.src.ops.math": {"TopK"},
    "keras.src.ops.nn": {"Relu"},
    "keras.src.ops.numpy": {
        "Add", "Einsum", "GetItem", "Greater", "Max", "Mean", "Sqrt", "Take",
        "TrueDivide", "Var", "Where",
    },
    None: {"__keras_tensor__", "__numpy__", "__slice__"},
}  # fmt: skip

# No layer of an EfficientNet has so many channels, no set so many classes.
MOST_CHANNELS = 100_000


def check_config(path: str | Path) -> None:
    """Raises InputError for a .keras file of other parts than Thaw writes.

    Keras builds whatever class the file names, with whatever arguments: some
    open files or go online.
    """
    with zipfile.ZipFile(path) as archive:
        archive.getinfo("model.weights.h5")  # else Keras reads an .npz
        left = [json.loads(archive.read("config.json"))]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        if not isinstance(value, dict):
            continue
        left += value.values()
        if "class_name" in value:
            module, name = value.get("module"), value["class_name"]
            if name not in ALLOWED.get(module, ()):
                raise InputError(f"it holds {module}.{name}, not of Thaw")
        for key in ("units", "filters"):
            channels = value.get(key, 0)
            if not isinstance(channels, int) or channels > MOST_CHANNELS:
                raise InputError(f"it holds a layer of {channels} {key}")


def read_model(path: str | Path) -> keras.Model:
    """Reads a .keras file that nobody vouches for; runs no code of it.

    Raises:
        InputError: in one line, whatever is wrong with it.
    """
    try:
        check_archive(path)
        check_config(path)
        with without_chatter(), warnings.catch_warnings(action="ignore"):
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        for weight in model.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                raise InputError(f"{weight.path} is not finite")
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} can't be loaded: {reason}") from error
    return model


def load_model(
    path: str | Path, shape: Sequence[int | None], classes: int
) -> keras.Model:
    """As `read_model`, of a model of one shape.

    Args:
        path: a .keras file.
        shape: the shape of one input that the model must take; None for
            any size.
        classes: the number of outputs that it must have.

    Raises:
        InputError: if it can't be read, or the model has another shape.
    """
    model = read_model(path)
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


def save_model(
    model: keras.Model, path: str | Path, info: ModelInfo | None = None
) -> None:
    """Writes a .keras file; the same model gives the same bytes.

    Keras alone writes the date into metadata.json, addresses of objects into
    config.json, and times into the zip's directory.

    Args:
        model: any.
        path: the file.
        info: what travels with the model, if anything does; `read_info` reads
            it back.
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
            values = {} if info is None else info.to_dict()
            text = json.dumps(values, indent=2, ensure_ascii=False)
            written.writestr(zipfile.ZipInfo(INFO_MEMBER), text)


# What no two files of one model have alike, and what nothing that reads them
# uses.
DROPPED = {"date_saved", "shared_object_id", "compile_config"}


def _drop_volatile(value):
    if isinstance(value, list):
        return [_drop_volatile(item) for item in value]
    if isinstance(value, dict):
        return {
            key: _drop_volatile(item)
            for key, item in value.items()
            if key not in DROPPED
        }
    return value
