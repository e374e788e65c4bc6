"""kill -9 of dvc, of a stage, or of both, at any moment."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.project import PIPELINES
from benchmarks.torture.runs import (
    forget_results,
    list_leftovers,
    list_stages,
    make_project,
    start,
)

LONGEST = 8.0  # seconds until the next kill; a stage takes 1 to 8


def kill_runs(folder: Path, options) -> Iterator[str]:
    """Runs the pipeline again and again, cut off at random, `--kills` times."""
    rng = random.Random(options.seed)
    project = make_project(folder / "project")
    project.repro(*PIPELINES)
    expected = project.list_hashes()
    kills, runs, wrong, left = 0, 0, 0, 0
    hit = {}
    while kills < options.kills:
        forget_results(project)
        while stage := kill_once(project, rng):
            hit[stage] = hit.get(stage, 0) + 1
            kills += 1
        runs += 1
        wrong += project.list_hashes() != expected
        left += bool(list_leftovers(project))
    yield "during " + ", ".join(f"{k} {n}" for k, n in sorted(hit.items()))
    yield (
        f"{kills} kills in {runs} runs, all of which came to their end; "
        f"{runs - wrong} with the hashes of a run that was never cut off, "
        f"{runs - left} without leftovers"
    )


def kill_once(project, rng: random.Random) -> str | None:
    """Goes on with a run for a while; the stage it was in, None at its end.

    DVC does not write its lock file at once: killed in that moment, it asks
    for the file to be removed.
    """
    dvc = start(project, "-m", "dvc", "repro", *PIPELINES)
    stop = time.monotonic() + rng.uniform(0.3, LONGEST)
    while time.monotonic() < stop:
        if dvc.poll() is not None:
            if not dvc.returncode:
                return None
            output = dvc.stdout.read()
            if "RWLock-file" not in output:
                raise RuntimeError(output)
            (project.folder / ".dvc/tmp/rwlock").unlink()
            return "DVC's writing of its lock"
        time.sleep(0.02)
    stages = list_stages(dvc)
    victims = rng.choice([[dvc], stages, [dvc, *stages]]) or [dvc]
    names = [" ".join(s.cmdline())[-20:] for s in stages if s.is_running()]
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    dvc.communicate()
    return names[-1].split("stages.")[-1] if names else "dvc itself"
