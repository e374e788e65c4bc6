"""What travels with a model. It is read without Keras."""

import json
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from thaw.errors import InputError

# The name of the file that holds a ModelInfo, in every model that has files.
INFO_FILE = "thaw.json"

# Its place in the zip of a .keras file: Keras ignores what assets/ holds.
INFO_MEMBER = f"assets/{INFO_FILE}"


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
        with zipfile.ZipFile(path) as archive:
            values = json.loads(archive.read(INFO_MEMBER))
        known = {field.name for field in fields(ModelInfo)}
        return ModelInfo(**{key: values[key] for key in values if key in known})
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} does not say which classes it knows; a .keras file that "
            "Thaw wrote is needed"
        ) from error
