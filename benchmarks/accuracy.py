"""Test accuracy, all epochs of both, seed by seed, at 64 px.

The embedded checkpoint was trained at that size.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scipy.stats import ttest_rel

from benchmarks.project import RECIPE, Project, run

IMAGE_SIZE = 64


def run_both(options: argparse.Namespace) -> Iterator[tuple[float, float]]:
    """For each seed the guide's accuracy, and Thaw's."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder))
        project.set(RECIPE)
        project.use(options.data, options.weights, IMAGE_SIZE)
        for seed in options.seeds:
            project.set({"seed": seed})
            project.repro()
            metrics = Path(folder, "metrics", "evaluate.json").read_text()
            output = run(
                *(sys.executable, "-m", "benchmarks.guide", options.data),
                *("--weights", options.weights, "--seed", seed),
                *("--image-size", IMAGE_SIZE),
            )
            yield (
                json.loads(output.splitlines()[-1])["accuracy"],
                json.loads(metrics)["finetuned"]["accuracy"],
            )


def measure(options: argparse.Namespace) -> Iterator[list[str]]:
    guide, thaw = zip(*run_both(options), strict=True)
    compared = ttest_rel(thaw, guide)
    low, high = compared.confidence_interval(0.95)
    difference = statistics.mean(thaw) - statistics.mean(guide)
    yield [
        f"test accuracy, {IMAGE_SIZE} px, mean of {len(guide)} seeds",
        f"the guide, {statistics.mean(guide):.3f}",
        f"{statistics.mean(thaw):.3f}",
        f"{difference:+.3f} ({low:+.3f} to {high:+.3f})",
        *("", ""),
    ]
