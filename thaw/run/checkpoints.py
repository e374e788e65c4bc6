"""Keeps the work of an interrupted stage until the stage is done.

It lies in `$DVC_ROOT/.dvc/tmp/thaw/KEY`, where a queued experiment, which runs
in a copy of the workspace, finds it too. The key is a digest of all that
dvc.yaml says the stage reads, and of the environment that computes.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from thaw.errors import InputError
from thaw.files.atomic import measure_size
from thaw.files.text import read_json, read_yaml, write_json
from thaw.run.console import format_bytes
from thaw.run.dvc_files import fill_in, get_value, read_hashes
from thaw.run.environment import describe_environment
from thaw.run.process import is_first

# Days after which unfinished work is removed.
MOST_DAYS = 14

# Suffixes of sources in a room of thaw/; .dvcignore lists the same.
SOURCES = {".py", ".html", ".md"}

FINISHED = "finished"  # an empty file


class Checkpoint:
    """A folder for unfinished work, and a note of how far it is.

    Attributes:
        folder: where the work lies.
        note: what `write` was last given, by this run or by one that was
            interrupted; empty in a new folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.note: dict = {}
        with suppress(FileNotFoundError):
            self.note = read_json(folder / "note.json")

    def write(self, **note: Any) -> None:
        write_json(self.folder / "note.json", note)
        self.note = note

    def check_room(self, size: int, hint: str) -> None:
        """Raises OSError where the disk can't hold `size` bytes of work."""
        size -= measure_size(self.folder)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise OSError(
                f"{format_bytes(size)} are needed, with DVC's copy, and "
                f"{format_bytes(free)} are free: {hint}"
            )

    def enter(self, name: str) -> "Checkpoint":
        """A part of the work, with a note of its own."""
        (self.folder / name).mkdir(exist_ok=True)
        return Checkpoint(self.folder / name)


@contextmanager
def open_checkpoint(last: bool = False) -> Iterator[Checkpoint]:
    """The checkpoint of this stage, to go on from or to fill.

    An interrupted block keeps its checkpoint. A block that ends well marks it
    as finished; it stays until the next stage starts, because DVC may be killed
    while it stores the results. An InputError deletes the checkpoint: its
    inputs will change anyway. A temporary checkpoint goes to a stage that DVC
    did not start, to a stage whose work another process is doing, and to every
    process but the first of several that train together.

    Args:
        last: whether no stage follows that opens one.
    """
    if not is_first():
        with tempfile.TemporaryDirectory() as passing:
            yield Checkpoint(Path(passing))
        return
    top = Path(os.environ.get("DVC_ROOT", "."), ".dvc", "tmp", "thaw")
    top.mkdir(parents=True, exist_ok=True)
    stage = os.environ.get("DVC_STAGE")
    own = top / make_key(stage) if stage else None
    tidy_up(top, own)
    lock = lock_folder(own) if own else None
    folder = own if own and lock else Path(tempfile.mkdtemp(dir=top))
    try:
        yield Checkpoint(folder)
        if lock and not last:
            (folder / FINISHED).touch()
        else:
            shutil.rmtree(folder)
    except BaseException as error:
        if not lock or isinstance(error, InputError):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        if lock:
            lock.release()


def hash_sources(room: Path) -> str:
    """Names and contents of what .dvcignore lets count."""
    digest = hashlib.sha256()
    for file in sorted(room.rglob("*")):
        if file.suffix in SOURCES:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(room)} {content}\n".encode())
    return digest.hexdigest()


def lock_folder(folder: Path) -> FileLock | None:
    """None where another process has it."""
    folder.mkdir(exist_ok=True)
    try:
        lock = FileLock(folder / "lock")
        lock.acquire(blocking=False)
        return lock
    except Timeout:
        return None


def tidy_up(top: Path, own: Path | None) -> None:
    """Removes what other stages finished, and what was left long ago."""
    oldest = time.time() - MOST_DAYS * 86400
    for folder in set(top.iterdir()) - {own}:
        with suppress(OSError):  # another process may be doing the same
            old = folder.stat().st_mtime < oldest
            done = old or (folder / FINISHED).exists()
            if done and (lock := lock_folder(folder)):
                shutil.rmtree(folder)
                lock.release()


def make_key(stage: str) -> str:
    """A digest of what determines the result of a stage."""
    about = read_yaml("dvc.yaml")["stages"][stage]
    params, known = read_yaml("params.yaml"), read_hashes()
    reads = {
        "cmd": about["cmd"],
        "params": {name: get_value(params, name) for name in about["params"]},
        "deps": {
            path: identify(Path(path), known)
            for path in (fill_in(d, params) for d in about["deps"])
        },
        "environment": describe_environment(),
    }
    text = json.dumps(reads, sort_keys=True, default=str)
    return f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def identify(path: Path, known: dict[Path, str]) -> str:
    """A file's content; a folder's, where DVC has written down its hash.

    A room of Thaw is identified by the contents of its sources; any other
    folder, which is the user's, by a listing of sizes and times.

    Args:
        path: the file or folder.
        known: hashes of what stages made.
    """
    if path.is_file():
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    if path in known:
        return known[path]
    added = Path(f"{path}.dvc")
    if added.exists():
        for out in read_yaml(added)["outs"]:
            if added.parent / out["path"] == path:
                return out["md5"]
    if (path / "__init__.py").exists():
        return hash_sources(path)
    listing = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        about = file.stat()
        line = f"{file.relative_to(path)} {about.st_size} {about.st_mtime_ns}\n"
        listing.update(os.fsencode(line))
    return listing.hexdigest()
