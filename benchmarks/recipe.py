"""The guide's recipe, and changes to it: seconds of `dvc repro`."""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.project import RECIPE, Project, run

PRECISIONS = ("auto", "float32")
CHANGES = {
    "then `finetune.blocks=3`": {"finetune": {"blocks": 3}},
    "then `finetune.blocks=2`": {"finetune": {"blocks": 2}},
    "then `head.learning_rate` and `finetune.epochs=1`": {
        "head": {"learning_rate": 0.005},
        "finetune": {"epochs": 1},
    },
}
NOTHING = "then nothing to do"


def run_guide(options: argparse.Namespace) -> float:
    """Seconds of the guide's own way, its epochs extrapolated from some."""
    output = run(
        *(sys.executable, "-m", "benchmarks.guide", options.data),
        *("--weights", options.weights, "--image-size", options.image_size),
        *("--timed", options.timed),
    )
    return json.loads(output.splitlines()[-1])["seconds"]


def run_thaw(options: argparse.Namespace, precision: str) -> dict[str, float]:
    """Seconds of the recipe, then of three changes to it, then of nothing."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder))
        project.set(RECIPE)
        project.set({"extract": {"precision": precision}})
        project.use(options.data, options.weights, options.image_size)
        seconds = {"the whole recipe": project.time_repro()}
        for label, change in CHANGES.items():
            project.set(change)
            seconds[label] = project.time_repro()
        seconds[NOTHING] = statistics.median(
            project.time_repro() for _ in range(5)
        )
        return seconds


def measure(options: argparse.Namespace) -> Iterator[list[str]]:
    rounds = [
        (run_guide(options), {p: run_thaw(options, p) for p in PRECISIONS})
        for _ in range(options.rounds)
    ]
    guide = statistics.median(guide for guide, _ in rounds)
    for label in rounds[0][1]["auto"]:
        row = [label, "" if label == NOTHING else f"the guide, {guide:.0f} s"]
        for precision in PRECISIONS:
            seconds = [ours[precision][label] for _, ours in rounds]
            ratios = [guide / ours[precision][label] for guide, ours in rounds]
            ratio = f"{statistics.median(ratios):.1f}"
            row += [f"{statistics.median(seconds):.1f} s"]
            row += ["" if label == NOTHING else ratio]
        yield row
