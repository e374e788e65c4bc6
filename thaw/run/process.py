"""A stage as a process: it locks its workspace, ends with its DVC, and obeys
Ctrl-C quickly."""

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from thaw.errors import InputError
from thaw.files.rank import is_first
from thaw.run.start import STDERR

LOCK = Path(".dvc/tmp/thaw.lock")

# What stands between DVC and the stage that it starts.
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}

# Seconds until an orphan notices that its DVC is gone, and until an interrupted
# stage must have saved its work.
POLL_SECONDS = 0.5
LEAVE_SECONDS = 1.5


@contextmanager
def lock_workspace() -> Iterator[None]:
    """Lets one stage at a time work in this folder.

    Only the first of several processes that train together takes the lock.

    Raises:
        InputError: if another stage keeps the lock.
    """
    if not is_first():
        yield
        return
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The stage of a DVC that was killed needs a moment to notice.
        lock = FileLock(LOCK).acquire(timeout=20 * POLL_SECONDS)
    except Timeout as error:
        raise InputError(
            "another stage is running in this folder; wait until it ends"
        ) from error
    with lock:
        yield


def find_starters() -> list[psutil.Process]:
    """DVC, if it started this stage, and the launchers in between.

    On another host that is what the launcher runs there.
    """
    starters = []
    if "DVC_STAGE" in os.environ:
        for parent in psutil.Process().parents():
            if parent.name() in SHELLS:
                continue
            starters.append(parent)
            if not has_stage(parent):
                break
    return starters


def has_stage(process: psutil.Process) -> bool:
    """Whether DVC started it, or what started it."""
    try:
        return "DVC_STAGE" in process.environ()
    except psutil.Error:  # another user's
        return False


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() not in (
            psutil.STATUS_ZOMBIE,
            psutil.STATUS_DEAD,
        )
    except psutil.NoSuchProcess:
        return False


def watch_process() -> None:
    """Ends this process with the DVC that started it, and soon after Ctrl-C.

    DVC's end is not passed on to what it runs. Ctrl-C and SIGTERM raise
    KeyboardInterrupt, which waits for whatever the main thread computes
    outside Python; when that takes too long, the process ends without it.
    """
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    threading.Thread(
        target=_watch, args=(woken, find_starters()), daemon=True
    ).start()


def _watch(woken: int, starters: list[psutil.Process]) -> None:
    while not select.select([woken], [], [], POLL_SECONDS)[0]:
        if not all(map(is_alive, starters)):
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(LEAVE_SECONDS)
    report_interruption()
    os._exit(130)


_interrupted = threading.Event()
_reported = threading.Lock()


def _interrupt(number: int, frame: object) -> None:
    _interrupted.set()
    report_interruption()  # before a library's C++ ends the program for it
    raise KeyboardInterrupt


def leave_if_interrupted() -> None:
    """Ends the program after Ctrl-C, whatever libraries made of that."""
    if _interrupted.is_set():
        os._exit(130)  # threads may be busy yet


def report_interruption() -> None:
    report("interrupted; `dvc repro` resumes")


def report(message: str) -> None:
    """One line, whoever calls first."""
    if _reported.acquire(blocking=False):
        clear = "\r\x1b[K" if os.isatty(STDERR) else ""  # a progress bar
        line = f"{clear}thaw: {message}\n"
        write_error(line.encode())


def write_error(text: bytes) -> None:
    """To the program's own stderr, whatever captures file descriptor 2."""
    os.write(STDERR, text)
