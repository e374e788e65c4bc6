"""params.yaml: what it may say, and reading it."""

import difflib
import json
import re
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from thaw.errors import InputError
from thaw.variants import VARIANTS


def _parse_number(value: Any) -> Any:
    """YAML 1.1 reads 1e-05, which DVC writes, as a string."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def whole(low: int, high: int = 2**31 - 1) -> Any:
    allowed = f"{low} or more" if high == 2**31 - 1 else f"{low} to {high}"
    return Field(ge=low, le=high, description=f"a whole number, {allowed}")


def number(allowed: str, **limits: float) -> Any:
    return Field(
        allow_inf_nan=False, description=f"a number {allowed}", **limits
    )


def one_of(*values: str) -> Any:
    return Field(description=", ".join(values[:-1]) + f" or {values[-1]}")


Number = Annotated[float, BeforeValidator(_parse_number)]
Text = Annotated[str, Field(min_length=1, description="a text")]
Flag = Annotated[bool, Field(description="true or false")]
# NumPy and Keras take no larger one.
Seed = Annotated[
    int, Field(ge=0, lt=2**32, description="a whole number, 0 to 4294967295")
]
Count = Annotated[int, whole(1)]
Views = Annotated[int, whole(1, 1000)]
Share = Annotated[Number, number("over 0 and under 1", gt=0, lt=1)]
Rate = Annotated[Number, number("over 0", gt=0)]
Dropout = Annotated[Number, number("from 0 to under 1", ge=0, lt=1)]


ClassWeight = Annotated[Literal["none", "balanced"], one_of("none", "balanced")]


class Section(BaseModel, extra="forbid", strict=True):
    pass


class Prepare(Section):
    source: Literal["digits", "folder", "tfds"] = one_of(
        "digits", "folder", "tfds"
    )
    path: Text
    name: Annotated[str | None, Field(description="a text or null")]
    data_dir: Annotated[str | None, Field(description="a text or null")]
    image_size: Annotated[
        int | None,
        Field(
            ge=32, le=4096, description="a whole number, 32 to 4096, or null"
        ),
    ]
    fit: Literal["squash", "crop"] = one_of("squash", "crop")
    validation: Share
    test: Share
    seed: Seed
    bad_images: Literal["skip", "fail"] = one_of("skip", "fail")
    group: Annotated[str | None, Field(description="a pattern or null")]
    duplicates: Literal["remove", "keep", "fail"] = one_of(
        "remove", "keep", "fail"
    )

    @property
    def data(self) -> str:
        """What names the images: a folder, a set of TFDS, or digits."""
        names = {"folder": self.path, "tfds": self.name or ""}
        return names.get(self.source, self.source)


class Backbone(Section):
    name: Literal[*VARIANTS] = one_of(*VARIANTS)
    weights: Literal["imagenet", "file"] | None = one_of(
        "imagenet", "file", "null"
    )
    file: Text


class Augment(Section):
    seed: Seed
    rotation: Annotated[Number, number("from 0 to 0.5", ge=0, le=0.5)]
    translation: Annotated[Number, number("from 0 to 1", ge=0, le=1)]
    horizontal_flip: Flag
    contrast: Annotated[Number, number("from 0 to 1", ge=0, le=1)]


class Extract(Section):
    views: Views
    precision: Literal["auto", "float32", "bfloat16"] = one_of(
        "auto", "float32", "bfloat16"
    )
    tap: Flag


class Head(Section):
    epochs: Count
    learning_rate: Rate
    batch_size: Count
    dropout: Dropout
    class_weight: ClassWeight


class Finetune(Section):
    blocks: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        description="a whole number, 0 or more, or all"
    )
    views: Views
    epochs: Count
    learning_rate: Rate
    warmup_epochs: Annotated[int, whole(0)]
    batch_size: Count
    drop_connect_rate: Dropout
    class_weight: ClassWeight


class Evaluate(Section):
    top_k: Count


Format = Annotated[
    Literal["keras", "saved_model", "onnx", "litert", "openvino"],
    one_of("keras", "saved_model", "onnx", "litert", "openvino"),
]


class Export(Section):
    formats: list[Format] = Field(
        description="a list of keras, saved_model, onnx, litert, openvino"
    )
    tolerance: Annotated[Number, number("over 0 and under 1", gt=0, lt=1)]


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

    @property
    def image_size(self) -> int:
        """Pixels a side of the prepared images."""
        own = VARIANTS[self.backbone.name].image_size
        return self.prepare.image_size or own


def load(path: str | Path = "params.yaml") -> Params:
    """Reads and checks all parameters.

    Raises:
        InputError: naming the first wrong key, its value and what is allowed.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        check_keys(values)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} can't be read: {reason}") from error
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        # A misspelt key is missing too: name the misspelling.
        errors = error.errors()
        errors.sort(key=lambda e: e["type"] != "extra_forbidden")
        raise InputError(f"{path}: {_describe(errors[0], values)}") from error
    except RecursionError as error:
        raise InputError(f"{path} holds itself") from error
    for problem in _find_contradictions(params):
        raise InputError(f"{path}: {problem}")
    return params


def check_keys(values: Any) -> None:
    """Raises ValueError for keys that YAML reads as something else."""
    for key, value in values.items() if isinstance(values, dict) else ():
        if not isinstance(key, str):
            raise ValueError(f"{key!r} is no name of a parameter")
        check_keys(value)


def _describe(error: dict, values: Any) -> str:
    # Behind section and key pydantic names the member of a union.
    *sections, key = keys = error["loc"][:2] or ("the file",)
    name = ".".join(map(str, keys))
    model = Params
    for section in sections:
        model = Params.model_fields[section].annotation
        values = values[section]
    known = model.model_fields
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(key), known, n=1)
        if close:
            return f"{name} is no parameter; did you mean {close[0]}?"
        return f"{name} is no parameter; allowed: {', '.join(known)}"
    allowed = (key in known and known[key].description) or "a section of keys"
    if error["type"] == "missing":
        return f"{name} is missing; allowed: {allowed}"
    if error["type"] == "less_than_equal":
        allowed += f", at most {error['ctx']['le']}"
    value = values[key] if keys[0] != "the file" else values
    return f"{name} is {_quote(value)}; allowed: {allowed}"


def _quote(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # what JSON can't say
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _find_contradictions(params: Params):
    """Yields what is wrong with parameters that are right one by one."""
    prepare, finetune = params.prepare, params.finetune
    # DVC would find out after it removed earlier results.
    if not is_there(prepare.path):
        yield f"prepare.path is {_quote(prepare.path)}, which is not there"
    elif prepare.source == "folder" and not Path(prepare.path).is_dir():
        yield f"prepare.path is {prepare.path}; allowed: a folder"
    if (
        not is_there(params.backbone.file)
        or Path(params.backbone.file).is_dir()
    ):
        yield (
            f"backbone.file is {_quote(params.backbone.file)}; allowed: a file "
            "that is there, whatever backbone.weights says"
        )
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
    if prepare.source == "tfds" and not prepare.name:
        yield "prepare.name is null; allowed: with source tfds, a set's name"
    scheme, colon, _ = (prepare.data_dir or "").partition("://")
    if colon and scheme != "gs":
        yield (
            f"prepare.data_dir is {_quote(prepare.data_dir)}; allowed: a "
            "folder, gs:// or null (TensorFlow reads no other scheme)"
        )
    name, blocks = params.backbone.name, VARIANTS[params.backbone.name].blocks
    if finetune.blocks != "all" and finetune.blocks > blocks:
        yield (
            f"finetune.blocks is {finetune.blocks}; allowed: 0 to {blocks} "
            f"({name}), or all"
        )
    if finetune.views > params.extract.views:
        yield (
            f"finetune.views is {finetune.views}; allowed: 1 to "
            f"extract.views ({params.extract.views})"
        )
