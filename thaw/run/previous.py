"""What the last run of a stage wrote, as dvc.lock and DVC's cache have it.

DVC has removed the workspace's copy when a stage starts. What a stage finds
here it need not compute again.
"""

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.files.text import read_json, read_yaml
from thaw.run.console import list_some, say
from thaw.run.dvc_files import get_value
from thaw.run.environment import describe_environment
from thaw.run.process import is_first

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.stage import Stage

ALWAYS = "data/params.ok"  # differs whenever any parameter does


@dataclass(frozen=True)
class Previous:
    """The last run of a stage.

    Attributes:
        folder: what it wrote, each output at its path: links into the cache.
        identity: a digest of what it wrote.
    """

    folder: Path
    identity: str


@contextmanager
def open_previous(
    data: Collection[str], params: Collection[str], about: str
) -> Iterator[Previous | None]:
    """The last run of this stage, if it computed a row as this one does.

    None where DVC did not start this process, where the stage never ran or
    DVC's cache lacks what it wrote, where the code, a parameter that counts or
    the environment was another, and where nothing is another, as in
    `dvc repro --force`.

    Args:
        data: dependencies that may be other ones, as dvc.yaml names them.
        params: that must be the same.
        about: the output that says "environment", a JSON file.
    """
    name = os.environ.get("DVC_STAGE")
    if not name or not is_first():
        yield None
        return
    from dvc.repo import Repo

    with ExitStack() as stack:
        repo = stack.enter_context(Repo())
        stage = repo.stage.load_one(name=name)
        files = find_files(stage)
        known = about in files and may_go_on(stage, {ALWAYS, *data}, params)
        if not known:
            yield None
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for path, cached in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(cached)
        before = read_json(folder / about)["environment"]
        if before != describe_environment():
            say(f"computes all anew: the last run was on {before}")
            yield None
            return
        hashes = sorted(str(out.hash_info.value) for out in stage.outs)
        digest = hashlib.sha256(" ".join(hashes).encode())
        yield Previous(folder, digest.hexdigest())


def may_go_on(
    stage: "Stage", data: Collection[str], params: Collection[str]
) -> bool:
    """Whether a row would be the same; says what is another."""
    recorded: dict[str, Any] = {}
    for dep in stage.params:
        recorded |= dep.hash_info.value or {}
    given = read_yaml("params.yaml")
    others = [
        name
        for name in params
        if find_value(recorded, name) != get_value(given, name)
    ]
    code = [dep for dep in stage.deps if dep not in stage.params]
    others += [str(x) for x in code if str(x) not in data and x.status()]
    if others:
        say(f"computes all anew: {list_some(others)} differ from the last run")
        return False
    return any(dep.status() for dep in stage.deps if str(dep) != ALWAYS)


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
        if out.use_cache:
            files |= list_files(out)
    return files if all(map(os.path.exists, files.values())) else {}


def list_files(out: "Output") -> dict[str, str]:
    """As `find_files`, of one output."""
    place = out.cache.oid_to_path
    if not out.hash_info.isdir:
        return {str(out): place(out.hash_info.value)}
    tree = out.get_obj()
    if tree is None:
        return {str(out): place(out.hash_info.value)}  # which is not there
    return {
        "/".join((str(out), *key)): place(info.value) for key, _, info in tree
    }
