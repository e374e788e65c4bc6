"""Ctrl-C at any moment of any stage."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.project import STAGES
from benchmarks.torture.runs import list_leftovers, make_project, start

TIMES = 8  # for each stage


def interrupt_stages(folder: Path, options) -> Iterator[str]:
    """Interrupts each stage at random; how long it takes, what it says."""
    rng = random.Random(options.seed)
    project = make_project(folder / "project")
    project.repro()
    longest, strange, total = 0.0, [], 0
    for stage in STAGES[1:]:
        lasts = 1.0 if stage == "prepare" else 5.0
        for _ in range(TIMES):
            program = start(project, "-m", f"stages.{stage}")
            time.sleep(rng.uniform(0.15, lasts))
            if program.poll() is not None:
                continue
            begin = time.monotonic()
            os.killpg(program.pid, signal.SIGINT)
            output = program.communicate()[0].splitlines()
            longest = max(longest, time.monotonic() - begin)
            total += 1
            said = [line for line in output if "interrupted" in line]
            ended = output and output[-1].startswith("thaw: interrupted")
            if not (len(said) == 1 and ended):
                strange.append((stage, output[-3:]))
    yield (
        f"{total} interrupts, {total - len(strange)} ended with one line, the "
        f"slowest after {longest:.1f} s; left behind: "
        f"{[x for x in list_leftovers(project) if 'unfinished' in x] or 'none'}"
    )
    yield from map(str, strange)
