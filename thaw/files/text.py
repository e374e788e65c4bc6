"""JSON and YAML."""

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from thaw.errors import InputError
from thaw.files.atomic import new_file


def write_json(path: str | Path, value: Any) -> None:
    with new_file(path) as unfinished:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        unfinished.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error


def read_yaml(path: str | Path) -> Any:
    """As DVC reads params.yaml and its own files: YAML 1.2.

    Raises:
        InputError: one line that says what is wrong, and where.
    """
    try:
        return YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, RecursionError) as error:
        reason = f"{error}"
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        reason = f"{where}{getattr(error, 'problem', None) or error}"
    raise InputError(f"{path} can't be read: {' '.join(reason.split())}")
