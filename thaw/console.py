"""What a stage says: how it starts, progress, how it ends."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tqdm import tqdm

from thaw.errors import InputError
from thaw.files import measure_size
from thaw.process import (
    is_first,
    lock_workspace,
    was_interrupted,
    watch_process,
)

# Informative and warning messages of TensorFlow's C++ side; errors stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# What TensorFlow and LiteRT print whatever the log level, notes (I...) and that
# there is no GPU where there is none; and what Ray's C++ side has to say.
CHATTER = re.compile(
    r"WARNING: All log messages before absl|I\d{4} |.*failed call to cuInit|"
    r"INFO: Created TensorFlow Lite|\[\d{4}-\d\d-\d\d .* [IWE] \d+ \d+\] "
)


def run_stage(
    main: Callable[[], Iterable[str] | None],
    loses: bool = True,
    within: Callable[[], AbstractContextManager] = nullcontext,
) -> None:
    """Runs a stage's `main`: one line and status 1 for what a user did, or a
    machine lacks.

    Args:
        main: the stage; what it returns are its last lines.
        loses: whether DVC removed results of an earlier run before it.
        within: what it runs within.
    """
    start = time.perf_counter()
    watch_process()
    try:
        with within(), lock_workspace():
            last = main() or ()
    except BaseException as error:
        if was_interrupted():  # whatever libraries made of it
            os._exit(130)  # threads may be busy yet
        if not isinstance(error, InputError | OSError | MemoryError):
            raise
        hint = " (`dvc checkout` brings earlier results back)" if loses else ""
        fail(f"{error}{hint}")
    say(f"took {format_seconds(time.perf_counter() - start)}", *last)


def fail(message: str) -> None:
    """Ends the program with one line and status 1."""
    print("thaw: " + " ".join(message.split()), file=sys.stderr, flush=True)
    sys.exit(1)


def say(*lines: str) -> None:
    for line in lines if is_first() else ():
        print(line, flush=True)


def say_wrote(*paths: str | Path) -> None:
    for path in paths:
        say(f"wrote {path}, {format_bytes(measure_size(path))}")


def format_count(count: int, one: str, more: str | None = None) -> str:
    """As in "1 pair", "2 pairs"."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def format_bytes(count: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1000 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.3g} {units[0]}"


def format_seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


@contextmanager
def progress(total: int | None, label: str, unit: str) -> Iterator[tqdm]:
    """A bar with the time left on a terminal; nothing in a log file."""
    with tqdm(
        total=total,
        desc=label,
        unit=f" {unit}",
        leave=False,
        disable=None if is_first() else True,
    ) as bar:
        yield bar


@contextmanager
def without_chatter() -> Iterator[None]:
    """Drops start-up chatter from file descriptor 2, passes on all else."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            captured.seek(0)
            kept = [line for line in captured if not CHATTER.match(line)]
            sys.stderr.writelines(kept)
