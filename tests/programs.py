"""Programs that tests start; no test waits for one without a bound."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Timer

from benchmarks.project import ROOT

SECONDS = 300  # ten times what anything here takes on a quiet machine


def end(program: subprocess.Popen) -> None:
    """`kill -9` of a program and of all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object], seconds: float = SECONDS):
    """Waits for a condition; returns what it gives once it is true.

    Raises:
        TimeoutError: It is false for so long.
    """
    last = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > last:
            raise TimeoutError(f"false for {seconds} s")
        time.sleep(0.01)
    return found


def read_until(program: subprocess.Popen, words: str) -> None:
    """Reads what a program says up to a line that has these words.

    Raises:
        AssertionError: It ended, or was ended for its silence, before that.
    """
    timer = Timer(SECONDS, end, [program])
    timer.start()
    try:
        for line in program.stdout:
            if words in line:
                return
    finally:
        timer.cancel()
    raise AssertionError(f"never said {words!r}: {finish(program)[1]}")


def finish(program: subprocess.Popen) -> tuple[str, str]:
    """Waits for a program's end; returns the rest of its two streams.

    Raises:
        subprocess.TimeoutExpired: It does not end by itself.
    """
    try:
        return program.communicate(timeout=SECONDS)
    finally:
        end(program)


def run(*command: str, cwd: Path = ROOT, **env: str) -> str:
    """Output of a command that must succeed."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | env,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
    ).stdout


def run_python(code: str, cwd: Path = ROOT, **env: str) -> str:
    """Output of a program in Python that must succeed."""
    return run(sys.executable, "-c", code, cwd=cwd, **env)
