"""What travels with a model. It is read without Keras."""

import json
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from thaw.errors import InputError
from thaw.files.archives import check_members

# The name of the file that holds a ModelInfo, in every model that has files.
INFO_FILE = "thaw.json"

# Its place in the zip of a .keras file: Keras ignores what assets/ holds.
INFO_MEMBER = f"assets/{INFO_FILE}"


FITS = ("squash", "crop")


@dataclass(frozen=True)
class ModelInfo:
    """What travels with a model, in its .keras file and in every export.

    Attributes:
        classes: their names, in the order of the model's outputs.
        temperature: the number that calibration divides logits by.
        image_size: pixels a side of the images that the model takes; 0 where
            it takes features.
        fit: how an image becomes a square, "squash" or "crop"; empty where
            the model takes features.
        any_size: whether the model takes images of any size, resizes them
            and calibrates its probabilities itself.
    """

    classes: list[str]
    temperature: float
    image_size: int = 0
    fit: str = ""
    any_size: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The attributes that are written: all but those left at a default."""
        values = {field: getattr(self, field.name) for field in fields(self)}
        return {
            field.name: value
            for field, value in values.items()
            if value != field.default
        }

    def to_json(self) -> str:
        """The same in one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


def read_info(path: str | Path) -> ModelInfo:
    """Reads what `save_model` wrote beside a model.

    Raises:
        InputError: where something other than Thaw wrote the file.
    """
    try:
        check_members(path)
        with zipfile.ZipFile(path) as archive:
            values = json.loads(archive.read(INFO_MEMBER))
        known = {field.name for field in fields(ModelInfo)}
        info = ModelInfo(**{key: values[key] for key in values if key in known})
    except InputError as error:
        raise InputError(f"{path} can't be read: {error}") from error
    except Exception as error:  # an archive is broken in more ways than one
        raise InputError(
            f"{path} does not say which classes it knows; a .keras file that "
            "Thaw wrote is needed"
        ) from error
    for problem in find_problems(info):
        raise InputError(f"{path} says {problem}")
    return info


def find_problems(info: ModelInfo) -> Iterator[str]:
    """Yields what a file says that no model of Thaw says."""
    names = info.classes
    if not isinstance(names, list) or not all(
        isinstance(name, str) and name for name in names
    ):
        yield f"classes that are no list of names: {names!r:.60}"
    elif len(set(names)) < max(len(names), 2):
        yield "the same class twice, or less than two classes"
    if not is_number(info.temperature) or not (
        0 < info.temperature <= sys.float_info.max
    ):
        yield f"a temperature of {info.temperature!r:.60}"
    size = info.image_size
    if (
        not is_number(size)
        or not isinstance(size, int)
        or not (size == 0 or 32 <= size <= 4096)
    ):
        yield f"an image size of {size!r:.60}"
    if info.fit not in (FITS if size else ("", *FITS)):
        yield f"that images are fitted by {info.fit!r:.60}"
    if not isinstance(info.any_size, bool):
        yield f"any_size is {info.any_size!r:.60}"


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
