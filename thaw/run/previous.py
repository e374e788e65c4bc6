"""What the last run of a stage wrote, as dvc.lock and DVC's cache have it.

DVC has removed the workspace's copy when a stage starts. What a stage finds
here it need not compute again.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.files.text import read_json, read_yaml
from thaw.run.console import list_some, say
from thaw.run.dvc_files import fill_in, get_value
from thaw.run.environment import describe_environment
from thaw.run.process import is_first

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.stage import Stage


@dataclass(frozen=True)
class Terms:
    """What may change so that a stage goes on from its last run.

    Attributes:
        data: dependencies whose rows are looked up one by one.
        params: that decide what a row becomes. The others, and the images'
            size, show in what was written.
        about: the output, JSON, that says "environment".
    """

    data: tuple[str, ...]
    params: tuple[str, ...]
    about: str


TERMS = {
    "prepare": Terms(
        ("${prepare.path}", "corrections.csv"),
        ("prepare.fit",),
        "metrics/details/prepare.json",
    ),
    "extract": Terms(
        ("data/prepared",), ("backbone", "augment"), "data/features/about.json"
    ),
    "prefix": Terms(
        ("data/prepared", "data/features"),
        ("backbone", "augment"),
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
        others: what keeps a row from becoming the same again.
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

    None where DVC did not start this process, where the stage never ran or
    DVC's cache lacks what it wrote, where another code, parameter or
    environment counts, which it says, and in `dvc repro --force`.
    """
    name = os.environ.get("DVC_STAGE")
    if name not in TERMS or not is_first():
        yield None
        return
    with open_last_run(name, read_yaml("params.yaml")) as last:
        if last and last.others:
            say(f"all rows are computed: {list_some(last.others)} differ")
        goes_on = last and not last.others and not last.is_forced()
        yield last if goes_on else None


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
        for path, cached in files.items():
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
    """What keeps a row from becoming the same as in the last run.

    Args:
        stage: as DVC has it.
        values: of params.yaml.
        terms: of the stage.
        folder: what it wrote.
    """
    others = list_changes(stage, values, terms.params)
    free = {ALWAYS, *(fill_in(path, values) for path in terms.data)}
    code = [dep for dep in stage.deps if dep not in stage.params]
    others += [
        str(dep) for dep in code if str(dep) not in free and dep.status()
    ]
    before = read_json(folder / terms.about)["environment"]
    if before != describe_environment():
        others.append(f"the environments ({before})")
    return others


def list_changes(
    stage: "Stage", values: dict, names: Iterable[str]
) -> list[str]:
    """Those of some parameters that were others when the stage last ran."""
    recorded: dict[str, Any] = {}
    for dep in stage.params:
        recorded |= dep.hash_info.value or {}
    return [
        name
        for name in names
        if find_value(recorded, name) != get_value(values, name)
    ]


def find_value(params: dict, name: str) -> Any:
    """As `get_value`; None where there is no such parameter."""
    with suppress(KeyError, TypeError):
        return get_value(params, name)
    return None


def find_files(stage: "Stage") -> dict[str, str]:
    """Each file that a stage wrote to its place in DVC's cache.

    Empty where one of them is not there.
    """
    files: dict[str, str] = {}
    for out in stage.outs:
        if not out.hash_info:
            return {}
        if out.use_cache:
            files |= list_files(out)
    return files if all(map(os.path.exists, files.values())) else {}


def list_files(out: "Output") -> dict[str, str]:
    """As `find_files`, of one output."""
    place = out.cache.oid_to_path
    tree = out.get_obj() if out.hash_info.isdir else None
    if tree is None:
        return {str(out): place(out.hash_info.value)}
    return {
        "/".join((str(out), *key)): place(info.value) for key, _, info in tree
    }
