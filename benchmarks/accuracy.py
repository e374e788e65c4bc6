"""Test accuracy of Thaw and of the guide, all epochs of both, seed by seed.

    python -m benchmarks.accuracy DATA [--seeds 1 2 3 4 5]

Prints JSON: both accuracies of every seed, and the paired difference with its
95 % interval (Student's t).
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from scipy.stats import ttest_rel

from benchmarks.project import RECIPE, ROOT, Project, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--weights", type=Path, default=next(ROOT.glob("weights/*.h5"))
    )
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(1, 6))
    options = parser.parse_args()
    data, weights = options.data.resolve(), options.weights.resolve()
    accuracies = {"guide": [], "thaw": []}
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        project.set(RECIPE)
        project.use(data, weights, options.image_size)
        for seed in options.seeds:
            project.set({"seed": seed})
            project.repro()
            metrics = json.loads(
                Path(folder, "metrics", "evaluate.json").read_text()
            )
            accuracies["thaw"].append(metrics["finetuned"]["accuracy"])
            output = run(
                *(sys.executable, "-m", "benchmarks.guide", data),
                *("--weights", weights, "--seed", seed),
                *("--image-size", options.image_size),
            )
            guide = json.loads(output.splitlines()[-1])
            accuracies["guide"].append(guide["accuracy"])
            print(seed, *(a[-1] for a in accuracies.values()), file=sys.stderr)
    compared = ttest_rel(accuracies["thaw"], accuracies["guide"])
    interval = compared.confidence_interval(0.95)
    pairs = zip(accuracies["thaw"], accuracies["guide"], strict=True)
    difference = statistics.mean(a - b for a, b in pairs)
    print(
        json.dumps(
            {
                **accuracies,
                "difference": difference,
                "low": float(interval.low),
                "high": float(interval.high),
            }
        )
    )


if __name__ == "__main__":
    main()
