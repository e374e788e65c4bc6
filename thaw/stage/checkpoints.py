"""Keeps the work of an interrupted stage until the stage is done.

It lies in `$DVC_ROOT/.dvc/tmp/thaw/KEY`, where a queued experiment, which runs
in a copy of the workspace, finds it too. The key is a digest of all that
dvc.yaml says the stage reads, and of the environment that computes.
"""

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
from thaw.files.phrases import format_bytes
from thaw.files.rank import is_first
from thaw.files.text import read_json, write_json
from thaw.run.console import say
from thaw.stage.inputs import make_key

# Days after which unfinished work is removed.
MOST_DAYS = 14

FINISHED = "finished"  # an empty file
LOCK = "lock"


NOTE = "note.json"
FORMAT = 1  # of the note; work with a note of another one is not gone on from


class Checkpoint:
    """A folder for unfinished work, and a note of how far it is.

    Work is gone on from if it is whole: every file that was there when the
    note was written has at least the length that it had then. Of any other
    work nothing is kept, which it says.

    Attributes:
        folder: where the work lies.
        note: what `write` was last given, by this run or by one that was
            interrupted; empty in a new folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.note: dict = {}
        try:
            self.note = read_note(folder)
        except FileNotFoundError:  # a new folder
            return
        except BrokenWork as error:
            say(f"an earlier run left broken work, {error}: it starts again")
            empty_folder(folder)

    def write(self, **note: Any) -> None:
        """Has the disk hold the work, then notes how far it is."""
        sizes = {}
        for path in list_work(self.folder):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            name = path.relative_to(self.folder).as_posix()
            sizes[name] = path.stat().st_size
        kept = {"format": FORMAT, "note": note, "sizes": sizes}
        write_json(self.folder / NOTE, kept)
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


class BrokenWork(Exception):
    """Why unfinished work is not whole."""


def read_note(folder: Path) -> dict:
    """What `Checkpoint.write` was last given.

    Raises:
        FileNotFoundError: if there is no note.
        BrokenWork: if it can't be read, or the work is shorter than it says.
    """
    try:
        kept = read_json(folder / NOTE)
        known = kept["format"] == FORMAT
        note, sizes = dict(kept["note"]), dict(kept["sizes"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise BrokenWork("its note can't be read") from error
    if not known:
        raise BrokenWork("its note is of another version")
    for name, size in sizes.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else 0
        if not path.is_file() or found < size:
            raise BrokenWork(f"{name} has {found} of {size} bytes")
    return note


def list_work(folder: Path) -> Iterator[Path]:
    """Files of a checkpoint, but those of parts, which have their own note."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not (path / NOTE).exists():
                yield from list_work(path)
        elif path.name not in (NOTE, LOCK, FINISHED):
            yield path


def empty_folder(folder: Path) -> None:
    """Removes all but the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


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


def lock_folder(folder: Path) -> FileLock | None:
    """None where another process has it."""
    folder.mkdir(exist_ok=True)
    try:
        lock = FileLock(folder / LOCK)
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
