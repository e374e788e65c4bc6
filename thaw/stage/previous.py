"""What the last run of a stage wrote, as dvc.lock and DVC's cache have it.

DVC has removed the workspace's copy when a stage starts. What a stage finds
here it need not compute again.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.files.phrases import list_some
from thaw.files.rank import is_first
from thaw.files.text import read_json, read_yaml
from thaw.run.console import say
from thaw.stage.dvc_files import fill_in, get_value
from thaw.stage.environment import describe_environment

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.stage import Stage


@dataclass(frozen=True)
class Terms:
    """What may change so that a stage still goes on from its last run.

    Whatever is not named here has all rows computed again.

    Attributes:
        data: dependencies whose rows are looked up one by one, by content.
        params: that decide which rows there are, not what a row becomes; or
            that show in what was written, as the images' size does.
        about: the output, JSON, that says "environment".
    """

    data: tuple[str, ...]
    params: frozenset[str]
    about: str


TERMS = {
    "prepare": Terms(
        ("${prepare.path}", "corrections.csv"),
        frozenset(
            {
                "prepare.source",
                "prepare.path",
                "prepare.classes",
                "prepare.files",
                "prepare.name",
                "prepare.data_dir",
                "prepare.image_size",
                "prepare.validation",
                "prepare.test",
                "prepare.seed",
                "prepare.bad_images",
                "prepare.group",
                "prepare.duplicates",
                "backbone.name",
            }
        ),
        "metrics/details/prepare.json",
    ),
    "extract": Terms(
        ("data/prepared",),
        frozenset({"extract.views", "extract.precision", "extract.tap"}),
        "data/features/about.json",
    ),
    "prefix": Terms(
        ("data/prepared", "data/features"),
        frozenset({"finetune.blocks", "finetune.views"}),
        "data/activations/about.json",
    ),
}

ALWAYS = "data/params.ok"  # differs whenever any parameter does


@dataclass(frozen=True)
class Previous:
    """The last run of a stage.

    Attributes:
        stage: as DVC has it.
        folder: what it wrote, each output at its path: links into the cache.
        others: names of what changed, so that no row is the same again.
    """

    stage: "Stage"
    folder: Path
    others: list[str]

    @property
    def identity(self) -> str:
        """A digest of what it wrote."""
        hashes = sorted(str(out.hash_info.value) for out in self.stage.outs)
        return hashlib.sha256(" ".join(hashes).encode()).hexdigest()

    def is_forced(self) -> bool:
        """Whether a run is asked for though nothing differs."""
        deps = [dep for dep in self.stage.deps if str(dep) != ALWAYS]
        return not any(dep.status() for dep in deps)


@contextmanager
def open_previous() -> Iterator[Previous | None]:
    """The last run of this stage, if a row would become the same again.

    None if DVC did not start this process, if the stage never ran or DVC's
    cache lacks what it wrote, in `dvc repro --force`, and, which it says, if
    code, parameters or environment changed or a file in the cache is broken.
    """
    name = os.environ.get("DVC_STAGE")
    if name not in TERMS or not is_first():
        yield None
        return
    with open_last_run(name, read_yaml("params.yaml")) as last:
        if last and last.others:
            say(f"all rows are computed: {list_some(last.others)} differ")
        goes_on = last and not last.others and not last.is_forced()
        yield last if goes_on and last and not drop_broken(last) else None


@contextmanager
def open_last_run(name: str, values: dict) -> Iterator[Previous | None]:
    """The last run of a stage; None where DVC's cache lacks what it wrote.

    Args:
        name: of the stage.
        values: of params.yaml, that it is to run with.
    """
    from dvc.repo import Repo

    with Repo() as repo, tempfile.TemporaryDirectory() as folder:
        stage = repo.stage.load_one(name=name)
        files = find_files(stage)
        for path, (cached, _) in files.items():
            link = Path(folder, path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(cached)
        if TERMS[name].about not in files:
            yield None
            return
        others = list_others(stage, values, TERMS[name], Path(folder))
        yield Previous(stage, Path(folder), others)


def list_others(
    stage: "Stage", values: dict, terms: Terms, folder: Path
) -> list[str]:
    """Names of what changed, so that no row is as in the last run.

    Args:
        stage: as DVC has it.
        values: of params.yaml.
        terms: of the stage.
        folder: what it wrote.
    """
    others = sorted(list_changes(stage, values) - terms.params)
    free = {ALWAYS, *(fill_in(path, values) for path in terms.data)}
    code = [dep for dep in stage.deps if dep not in stage.params]
    others += [
        str(dep) for dep in code if str(dep) not in free and dep.status()
    ]
    before = read_json(folder / terms.about)["environment"]
    if before != describe_environment():
        others.append(f"the environments ({before})")
    return others


def list_changes(stage: "Stage", values: dict) -> set[str]:
    """Names of a stage's parameters that had another value when it last ran.

    Args:
        stage: as DVC has it.
        values: of params.yaml.
    """
    recorded: dict[str, Any] = {}
    wanted: dict[str, Any] = {}
    for dep in stage.params:
        recorded |= flatten(dep.hash_info.value or {})
        wanted |= flatten({x: get_value(values, x) for x in dep.params})
    absent = object()
    return {
        name
        for name in recorded.keys() | wanted.keys()
        if recorded.get(name, absent) != wanted.get(name, absent)
    }


def flatten(params: dict, prefix: str = "") -> dict[str, Any]:
    """Sections in sections to one level, its keys `section.key`."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def drop_broken(previous: Previous) -> bool:
    """Whether DVC's cache holds a file of other bytes than its name says.

    DVC itself trusts a file that is there, and would keep it where the stage
    writes the right bytes: it is removed, which it says.
    """
    broken = [
        (path, cached)
        for path, (cached, md5) in find_files(previous.stage).items()
        if hash_file(cached) != md5
    ]
    for path, cached in broken:
        say(
            f"all rows are computed: DVC's cache held a broken copy of {path}, "
            "which is removed"
        )
        Path(cached).unlink()
    return bool(broken)


def hash_file(path: str) -> str:
    """As DVC names files in its cache."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.md5(usedforsecurity=False)
        ).hexdigest()


# Place of a file in DVC's cache, and its md5.
Cached = tuple[str, str]


def find_files(stage: "Stage") -> dict[str, Cached]:
    """Each file that a stage wrote to where DVC's cache has it.

    Empty if one of them is not there.
    """
    files: dict[str, Cached] = {}
    for out in stage.outs:
        if not out.hash_info:
            return {}
        if out.use_cache:
            files |= list_files(out)
    there = all(Path(place).exists() for place, _ in files.values())
    return files if there else {}


def list_files(out: "Output") -> dict[str, Cached]:
    """As `find_files`, of one output."""
    place = out.cache.oid_to_path
    tree = out.get_obj() if out.hash_info.isdir else None
    if tree is None:
        md5 = out.hash_info.value
        return {str(out): (place(md5), md5)}
    return {
        "/".join((str(out), *key)): (place(info.value), info.value)
        for key, _, info in tree
    }
