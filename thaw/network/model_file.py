"""Models as .keras files, and what travels with them."""

import json
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thaw.errors import InputError
from thaw.files.archives import check_archive
from thaw.files.atomic import new_file
from thaw.network.backend import keras
from thaw.run.console import without_chatter

# In the zip of a .keras file; Keras keeps away from what is in assets/.
ABOUT = "assets/thaw.json"


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
