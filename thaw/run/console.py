"""What a stage says: how it starts, progress, how it ends."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from thaw.errors import InputError
from thaw.files.atomic import measure_size
from thaw.run.process import (
    is_first,
    lock_workspace,
    was_interrupted,
    watch_process,
)

# Hides notes and warnings of TensorFlow's C++ code, and shows its errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Lines to drop: TensorFlow and LiteRT print notes (I...) and "no GPU" at any
# log level; Ray's C++ code prints its own.
CHATTER = re.compile(
    r"WARNING: All log messages before absl|I\d{4} |.*failed call to cuInit|"
    r"INFO: Created TensorFlow Lite|\[\d{4}-\d\d-\d\d .* [IWE] \d+ \d+\] "
)


def run_stage(
    main: Callable[[], Iterable[str] | None],
    loses: bool = True,
    within: Callable[[], AbstractContextManager] = nullcontext,
) -> None:
    """Runs a stage's `main`.

    InputError, OSError and MemoryError print one line and exit with status 1;
    any other exception is a bug and shows a traceback.

    Args:
        main: the stage; what it returns are its last lines.
        loses: whether DVC removes earlier results before this stage runs.
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


def list_some(names: Sequence[str], most: int = 20, between: str = ", ") -> str:
    """As in "a, b and 3 more"."""
    shown = between.join(names[:most])
    more = len(names) - most
    return f"{shown} and {more:,} more" if more > 0 else shown


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


# Seconds between two lines of progress where there is no terminal.
SECONDS_BETWEEN_LINES = 20


class Lines:
    """Shows progress as a line every 20 seconds, with the methods of `tqdm`.

    Args:
        total: how many there are; None if that is unknown.
        label, unit: what is done, and to what.
        done: by a run that was cut off.
    """

    def __init__(self, total: int | None, label: str, unit: str, done: int):
        self.total, self.label, self.unit = total, label, unit
        self.n = self.first = done
        self.start = self.last = time.perf_counter()

    def update(self, count: int = 1) -> None:
        self.n += count
        now = time.perf_counter()
        if now - self.last < SECONDS_BETWEEN_LINES or self.n == self.first:
            return
        self.last = now
        rate = (self.n - self.first) / (now - self.start)
        speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        of, left = "", ""
        if self.total is not None:
            seconds = (self.total - self.n) / rate
            of = f" of {self.total}"
            left = f", about {format_seconds(seconds)} left"
        print(
            f"{self.label}: {self.n}{of} {self.unit}, {speed} a second{left}",
            file=sys.stderr,
            flush=True,
        )

    def clear(self) -> None:
        """There is nothing to clear."""


Bar: TypeAlias = tqdm | Lines


def can_draw() -> bool:
    """Whether stderr is a terminal that a bar fits on: some have no width."""
    if not sys.stderr.isatty():
        return False
    return os.get_terminal_size(sys.stderr.fileno()).columns > 0


@contextmanager
def progress(
    total: int | None, label: str, unit: str, done: int = 0
) -> Iterator[Bar]:
    """A bar with the time left on a terminal, lines in a log file."""
    if is_first() and not can_draw():
        yield Lines(total, label, unit, done)
        return
    with tqdm(
        total=total,
        desc=label,
        unit=f" {unit}",
        leave=False,
        initial=done,
        disable=not is_first(),
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
