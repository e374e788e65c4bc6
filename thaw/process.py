"""A stage as a process: alone in its workspace, gone with its DVC, quick to
interrupt."""

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

from thaw import STDERR
from thaw.errors import InputError

LOCK = Path(".dvc/tmp/thaw.lock")

# What stands between DVC and the stage that it starts.
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}

# For those who wait: how long an orphan may take to notice, and how long an
# interrupted stage may take to put away what it was at.
POLL_SECONDS = 0.5
LEAVE_SECONDS = 1.5


@contextmanager
def lock_workspace() -> Iterator[None]:
    """Lets one stage at a time work in this folder.

    Raises:
        InputError: where another one goes on working.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The stage of a DVC that was killed needs a moment to notice.
        lock = FileLock(LOCK).acquire(timeout=20 * POLL_SECONDS)
    except Timeout as error:
        raise InputError(
            "another stage is at work in this folder; wait for it to end"
        ) from error
    with lock:
        yield


def find_dvc() -> psutil.Process | None:
    """The DVC that started this stage, if one did."""
    if "DVC_STAGE" not in os.environ:
        return None
    parents = psutil.Process().parents()
    return next((p for p in parents if p.name() not in SHELLS), None)


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
        target=_watch, args=(woken, find_dvc()), daemon=True
    ).start()


def _watch(woken: int, dvc: psutil.Process | None) -> None:
    while not select.select([woken], [], [], POLL_SECONDS)[0]:
        if dvc and not is_alive(dvc):
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


def was_interrupted() -> bool:
    return _interrupted.is_set()


def report_interruption() -> None:
    """One line, whoever calls first."""
    if _reported.acquire(blocking=False):
        clear = "\r\x1b[K" if os.isatty(STDERR) else ""  # a progress bar
        line = f"{clear}thaw: interrupted; `dvc repro` goes on\n"
        os.write(STDERR, line.encode())
