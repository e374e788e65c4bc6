"""How a stage starts and ends."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from thaw.errors import InputError
from thaw.files.phrases import format_seconds
from thaw.files.rank import is_first
from thaw.files.text import read_json, write_json
from thaw.run.console import fail, say
from thaw.run.process import leave_if_interrupted, lock_workspace, watch_process
from thaw.stage.inputs import watch_inputs

TOOK = Path(".dvc/tmp/thaw-seconds.json")


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
        with within(), lock_workspace(), watch_inputs():
            last = main() or ()
    except BaseException as error:
        leave_if_interrupted()
        if not isinstance(error, InputError | OSError | MemoryError):
            raise
        hint = " (`dvc checkout` brings earlier results back)" if loses else ""
        fail(f"{error}{hint}")
    seconds = time.perf_counter() - start
    record_seconds(seconds)
    say(f"took {format_seconds(seconds)}", *last)


def record_seconds(seconds: float) -> None:
    """Writes down what this stage took, if DVC runs it."""
    stage = os.environ.get("DVC_STAGE")
    if stage and is_first():
        name = stage.rpartition(":")[2]
        write_json(TOOK, read_seconds() | {name: round(seconds, 1)})


def read_seconds() -> dict[str, float]:
    """What each stage took when it last ran in this folder."""
    try:
        return dict(read_json(TOOK))
    except (OSError, ValueError, TypeError):  # none yet, or spoilt
        return {}
