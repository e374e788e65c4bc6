"""params.yaml: what it may say, and reading it."""

import difflib
import json
import os
import re
import subprocess
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from thaw.data.efficientnet import VARIANTS
from thaw.errors import InputError
from thaw.files.text import read_yaml

# Sources whose photographs lie in the folder `prepare.path`.
IN_FOLDER = ("folder", "table")


def whole(low: int, high: int = 2**31 - 1) -> Any:
    allowed = f"{low} or more" if high == 2**31 - 1 else f"{low} to {high}"
    return Field(ge=low, le=high, description=f"a whole number, {allowed}")


def number(allowed: str, **limits: Any) -> Any:
    return Field(
        allow_inf_nan=False, description=f"a number {allowed}", **limits
    )


Text = Annotated[str, Field(min_length=1, description="a text")]
Flag = Annotated[bool, Field(description="true or false")]
# NumPy and Keras take no larger one.
Seed = Annotated[
    int, Field(ge=0, lt=2**32, description="a whole number, 0 to 4294967295")
]
Count = Annotated[int, whole(1)]
Views = Annotated[int, whole(1, 1000)]
Share = Annotated[float, number("over 0 and under 1", gt=0, lt=1)]
Rate = Annotated[float, number("over 0", gt=0)]
Dropout = Annotated[float, number("from 0 to under 1", ge=0, lt=1)]
L2 = Annotated[float, number("0 or more", ge=0)]


ClassWeight = Literal["none", "balanced"]


class Section(BaseModel, extra="forbid", strict=True):
    """Keys of params.yaml: no default and no change of a value.

    Whatever a stage reads here is what DVC compares, so that this module, which
    re-runs nothing, decides no result.
    """


class Prepare(Section):
    source: Literal["digits", "folder", "table", "tfds"]
    path: Text
    classes: Literal["first", "leaf"]
    files: Annotated[
        str | None,
        Field(min_length=1, description="a pattern of file names, or null"),
    ]
    name: Annotated[str | None, Field(description="a text or null")]
    data_dir: Annotated[str | None, Field(description="a text or null")]
    image_size: Annotated[
        int | None,
        Field(
            ge=32, le=4096, description="a whole number, 32 to 4096, or null"
        ),
    ]
    fit: Literal["squash", "crop"]
    validation: Share
    test: Share
    seed: Seed
    bad_images: Literal["skip", "fail"]
    group: Annotated[str | None, Field(description="a pattern or null")]
    duplicates: Literal["remove", "keep", "fail"]


class Backbone(Section):
    name: Literal[*VARIANTS]  # type: ignore[valid-type]
    weights: Literal["imagenet", "file"] | None
    file: Text


class Augment(Section):
    seed: Seed
    rotation: Annotated[float, number("from 0 to 0.5", ge=0, le=0.5)]
    translation: Annotated[float, number("from 0 to 1", ge=0, le=1)]
    horizontal_flip: Flag
    contrast: Annotated[float, number("from 0 to 1", ge=0, le=1)]


class Extract(Section):
    views: Views
    precision: Literal["auto", "float32", "bfloat16"]
    tap: Flag


class Head(Section):
    features: Literal["all", "last"]
    epochs: Count
    learning_rate: Rate
    batch_size: Count
    dropout: Dropout
    l2: L2
    class_weight: ClassWeight


class Finetune(Section):
    blocks: Annotated[int, Field(ge=0)] | Literal["all", "half"] = Field(
        description="a whole number, 0 or more, half or all"
    )
    views: Views
    epochs: Annotated[int, whole(0)]
    learning_rate: Rate
    warmup_epochs: Annotated[int, whole(0)]
    batch_size: Count
    drop_connect_rate: Dropout
    class_weight: ClassWeight


class Evaluate(Section):
    top_k: Count


ExportFormat = Literal["keras", "saved_model", "onnx", "litert", "openvino"]


class Export(Section):
    formats: list[ExportFormat] = Field(
        description="a list of " + ", ".join(get_args(ExportFormat))
    )
    tolerance: Annotated[float, number("over 0 and under 1", gt=0, lt=1)]


class Params(Section):
    seed: Seed
    prepare: Prepare
    backbone: Backbone
    augment: Augment
    extract: Extract
    head: Head
    finetune: Finetune
    evaluate: Evaluate
    export: Export


def load(path: str | Path = "params.yaml") -> Params:
    """Reads and checks all parameters.

    Raises:
        InputError: naming the first wrong key, its value and what is allowed.
    """
    values = read_yaml(path)
    try:
        return check_values(values)
    except InputError as error:
        raise InputError(f"{path}: {error}{_tell_way_back(path)}") from error


def check_values(values: Any) -> Params:
    """Parameters, from what a params.yaml holds.

    Raises:
        InputError: naming the first wrong key, its value and what is allowed.
    """
    try:
        for key in _list_keys(values):
            if not isinstance(key, str):
                raise InputError(f"{key!r} is no name of a parameter")
        params = Params.model_validate(values)
    except ValidationError as error:
        # A misspelt key is missing too: name the misspelling.
        errors = error.errors()
        errors.sort(key=lambda e: e["type"] != "extra_forbidden")
        raise InputError(_describe(errors[0], values)) from error
    except RecursionError as error:
        raise InputError("it holds itself") from error
    for problem in _find_contradictions(params):
        raise InputError(problem)
    return params


def check_name(name: str) -> None:
    """Raises InputError where no parameter or section has this name."""
    model, keys = Params, name.split(".")
    for place, key in enumerate(keys, start=1):
        known = getattr(model, "model_fields", None)
        if known is None:
            raise InputError(f"{name} is no parameter")
        if key not in known:
            raise InputError(_suggest(".".join(keys[:place]), key, known))
        model = known[key].annotation


def _list_keys(values: Any) -> Iterator[Any]:
    for key, value in values.items() if isinstance(values, dict) else ():
        yield key
        yield from _list_keys(value)


def _tell_way_back(path: str | Path) -> str:
    """How to undo what `-S` left, where the file is not as Git has it.

    Empty in the copy of the workspace in which a queued experiment runs.
    """
    folder, name = Path(path).absolute().parent, Path(path).name
    if Path(os.environ.get("DVC_ROOT", folder)) != folder:
        return ""
    command = ["git", "-C", f"{folder}", "diff", "--quiet", "--", name]
    with suppress(FileNotFoundError):  # no Git
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 1:
            return (
                f" ({name} keeps what -S set; `git checkout {name}` brings "
                "back the committed file)"
            )
    return ""


def _describe(error: Mapping, values: Any) -> str:
    # Behind section and key pydantic names the member of a union.
    *sections, key = keys = error["loc"][:2] or ("the file",)
    name = ".".join(map(str, keys))
    model: Any = Params
    for section in sections:
        model = Params.model_fields[section].annotation
        values = values[section]
    known = model.model_fields
    if error["type"] == "extra_forbidden":
        return _suggest(name, key, known)
    allowed = describe_allowed(known.get(key))
    if error["type"] == "missing":
        return f"{name} is missing; allowed: {allowed}"
    if error["type"] == "less_than_equal":
        allowed += f", at most {error['ctx']['le']}"
    value = values[key] if keys[0] != "the file" else values
    return f"{name} is {_quote(value)}; allowed: {allowed}"


def describe_allowed(field: FieldInfo | None) -> str:
    """What a field's annotation or description says; sections have neither."""
    if field and field.description:
        return field.description
    values = list_choices(field.annotation) if field else []
    if not values:
        return "a section of keys"
    return ", ".join(values[:-1]) + f" or {values[-1]}"


def list_choices(annotation: Any) -> list[str]:
    """The values of a Literal, and null where None is among them."""
    values = []
    for value in get_args(annotation):
        if isinstance(value, str):
            values.append(value)
        else:
            values += ["null"] if value is type(None) else list_choices(value)
    return values


def _suggest(name: str, key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    if close:
        return f"{name} is no parameter; did you mean {close[0]}?"
    return f"{name} is no parameter; allowed: {', '.join(known)}"


def _quote(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # what JSON can't say
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def is_there(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _expand(path: str) -> str:
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # nobody's home
        return "/absolute/path"


def _explain_copy(path: str) -> str:
    """What to do where an experiment's copy of the workspace lacks a path."""
    workspace = Path(os.environ.get("DVC_ROOT", "."))  # whoever started it
    if workspace.resolve() == Path.cwd() or not is_there(workspace / path):
        return ""
    return (
        f" in this copy of the workspace: `dvc add {path}` and commit "
        f"{path}.dvc, or give an absolute path"
    )


def _find_contradictions(params: Params) -> Iterator[str]:
    """Yields what is wrong with parameters that are right one by one."""
    yield from _check_path(params.prepare)
    file = params.backbone.file
    if not is_there(file) or Path(file).is_dir():
        yield (
            f"backbone.file is {_quote(file)}; allowed: a file that is there, "
            "whatever backbone.weights says"
        )
    yield from _check_prepare(params.prepare)
    finetune = params.finetune
    name, blocks = params.backbone.name, VARIANTS[params.backbone.name].blocks
    if isinstance(finetune.blocks, int) and finetune.blocks > blocks:
        yield (
            f"finetune.blocks is {finetune.blocks}; allowed: 0 to {blocks} "
            f"({name}), half or all"
        )
    if finetune.views > params.extract.views:
        yield (
            f"finetune.views is {finetune.views}; allowed: 1 to "
            f"extract.views ({params.extract.views})"
        )


def _check_path(prepare: Prepare) -> Iterator[str]:
    # DVC would find out after it removed earlier results.
    if prepare.path[0] == "~":
        yield (
            f"prepare.path is {_quote(prepare.path)}, and DVC knows no ~; "
            f"allowed: {_quote(_expand(prepare.path))}"
        )
    if not is_there(prepare.path):
        yield (
            f"prepare.path is {_quote(prepare.path)}, which is not there"
            f"{_explain_copy(prepare.path)}"
        )
    elif prepare.source in IN_FOLDER and not Path(prepare.path).is_dir():
        yield f"prepare.path is {prepare.path}; allowed: a folder"


def _check_prepare(prepare: Prepare) -> Iterator[str]:
    if prepare.validation + prepare.test >= 1:
        yield (
            f"prepare.test is {prepare.test:g}; allowed: with "
            f"prepare.validation ({prepare.validation:g}) under 1"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(prepare.group or "")
    except (re.error, ValueError, RecursionError, OverflowError) as error:
        yield (
            f"prepare.group is {_quote(prepare.group)}; allowed: a regular "
            f"expression or null ({error})"
        )
    if prepare.files is not None and prepare.source != "folder":
        yield (
            f"prepare.files is {_quote(prepare.files)}; allowed: null unless "
            "prepare.source is folder"
        )
    if prepare.source == "tfds" and not prepare.name:
        yield "prepare.name is null; allowed: with source tfds, a set's name"
    scheme, colon, _ = (prepare.data_dir or "").partition("://")
    if colon and scheme != "gs":
        yield (
            f"prepare.data_dir is {_quote(prepare.data_dir)}; allowed: a "
            "folder, gs:// or null (TensorFlow reads no other scheme)"
        )
