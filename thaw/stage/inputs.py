"""What a stage reads, as dvc.yaml says: parameters, files, code."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thaw.errors import InputError
from thaw.files.phrases import list_some
from thaw.files.rank import is_first
from thaw.files.text import read_yaml
from thaw.stage.dvc_files import fill_in, get_value, read_hashes
from thaw.stage.environment import describe_environment

# Suffixes of sources in a room of thaw/; .dvcignore lists the same.
SOURCES = {".py", ".html", ".md"}


@contextmanager
def watch_inputs() -> Iterator[None]:
    """Refuses to end a stage that read what has changed since.

    DVC writes down what a stage reads when the stage has ended: whatever was
    edited meanwhile, params.yaml or a photograph, would count as read.

    Raises:
        InputError: behind a block that ended well, naming what changed.
    """
    stage = os.environ.get("DVC_STAGE")
    if not stage or not is_first():
        yield
        return
    before = read_inputs(stage, by_times=True)
    yield
    after = read_inputs(stage, by_times=True)
    changed = [name for name in before if before[name] != after.get(name)]
    if changed or len(after) > len(before):
        raise InputError(
            f"{list_some(changed) or 'dvc.yaml'} changed while {stage} ran, so "
            "its results are of neither state; `dvc repro` runs it again"
        )


def make_key(stage: str) -> str:
    """A digest of what determines the result of a stage."""
    reads = read_inputs(stage) | {"environment": describe_environment()}
    text = json.dumps(reads, sort_keys=True, default=str)
    return f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def read_inputs(stage: str, by_times: bool = False) -> dict[str, str]:
    """Command, parameters and dependencies of a stage, to what each is now.

    Args:
        stage: of dvc.yaml.
        by_times: as in `identify`.
    """
    about = find_stage(stage)
    params, known = read_yaml("params.yaml"), read_hashes()
    paths = [fill_in(path, params) for path in about["deps"]]
    return (
        {"cmd": about["cmd"]}
        | {
            name: json.dumps(get_value(params, name), default=str)
            for name in about.get("params", ())
        }
        | {path: identify(Path(path), known, by_times) for path in paths}
    )


def find_stage(stage: str) -> dict[str, Any]:
    """What a dvc.yaml of this project says of a stage.

    Args:
        stage: its name, or FILE:NAME, as DVC_STAGE has it.
    """
    name = stage.rpartition(":")[2]
    files = [Path("dvc.yaml"), *sorted(Path().glob("*/dvc.yaml"))]
    pipelines = (read_yaml(file)["stages"] for file in files)
    return next(stages[name] for stages in pipelines if name in stages)


def identify(path: Path, known: dict[Path, str], by_times: bool = False) -> str:
    """A file's content; a folder's, where DVC has written down its hash.

    A room of Thaw is identified by the contents of its sources; any other
    folder, which is the user's, by a listing of sizes and times.

    Args:
        path: the file or folder.
        known: hashes of what stages made.
        by_times: take the listing even where DVC has a hash of the user's
            folder. Times tell what changed since; they differ between copies.
    """
    if path.is_file():
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    if path in known:
        return known[path]
    added = Path(f"{path}.dvc")
    if added.exists() and not by_times:
        for out in read_yaml(added)["outs"]:
            if added.parent / out["path"] == path:
                return out["md5"]
    if (path / "__init__.py").exists():
        return hash_sources(path)
    listing = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        about = file.lstat()
        line = f"{file.relative_to(path)} {about.st_size} {about.st_mtime_ns}\n"
        listing.update(os.fsencode(line))
    return listing.hexdigest()


def hash_sources(room: Path) -> str:
    """Names and contents of what .dvcignore lets count."""
    digest = hashlib.sha256()
    for file in sorted(room.rglob("*")):
        if file.suffix in SOURCES:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(room)} {content}\n".encode())
    return digest.hexdigest()
