"""What a program says: lines, progress, its last words."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from thaw.files.atomic import measure_size
from thaw.files.phrases import format_bytes, format_seconds
from thaw.files.rank import is_first

# Hides notes and warnings of TensorFlow's C++ code, and shows its errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Lines to drop: TensorFlow and LiteRT print notes (I...) and "no GPU" at any
# log level; Ray's C++ code prints its own.
CHATTER = re.compile(
    r"WARNING: All log messages before absl|I\d{4} |.*failed call to cuInit|"
    r"INFO: Created TensorFlow Lite|\[\d{4}-\d\d-\d\d .* [IWE] \d+ \d+\] "
)


def fail(message: str) -> None:
    """Ends the program with one line and status 1."""
    line = escape(" ".join(message.split()))
    print(f"thaw: {line}", file=sys.stderr, flush=True)
    sys.exit(1)


def escape(text: str) -> str:
    """A text of others for a terminal, which control characters would steer."""
    return "".join(
        char if char.isprintable() else ascii(char)[1:-1] for char in text
    )


def say(*lines: str) -> None:
    for line in lines if is_first() else ():
        print(line, flush=True)


def say_wrote(*paths: str | Path) -> None:
    for path in paths:
        say(f"wrote {path}, {format_bytes(measure_size(path))}")


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
