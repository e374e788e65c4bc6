"""Models as .keras files."""

import json
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

from thaw.errors import InputError
from thaw.files.archives import check_archive
from thaw.files.atomic import new_file
from thaw.network.backend import keras
from thaw.network.model_info import INFO_MEMBER, ModelInfo
from thaw.run.console import without_chatter


def load_model(
    path: str | Path, shape: Sequence[int | None], classes: int
) -> keras.Model:
    """Reads a model from a file that nobody vouches for; runs no code of it.

    Args:
        path: a .keras file.
        shape: the shape of one input that the model must take; None for
            any size.
        classes: the number of outputs that it must have.

    Raises:
        InputError: where Keras can't read the file or would have to run code
            of it, or where the model has another shape.
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
