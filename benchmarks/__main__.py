"""Thaw against its peers, side by side on one machine.

    make bench DATA=folder [WEIGHTS=file]    # train/, validation/, test/ inside

Prints a Markdown table. Every ratio is the median of those of several rounds,
in which both sides run one after the other.
"""

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks import accuracy, engine, memory, recipe, suffix
from benchmarks.project import ROOT
from thaw.stage.environment import get_processor

PARTS = {
    "recipe": recipe.measure,
    "engine": engine.measure,
    "suffix": suffix.measure,
    "memory": memory.measure,
    "accuracy": accuracy.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--weights", type=Path, default=next(ROOT.glob("weights/*.h5"))
    )
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--timed", type=int, default=3, help="epochs run of each of the guide's"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(range(1, 6))
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    options = parser.parse_args()
    options.data = options.data.resolve()
    options.weights = options.weights.resolve()
    names = ("tensorflow", "keras", "openvino", "dvc")
    print(
        f"{get_processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + f"; {options.data.name}, {options.image_size} px, medians of "
        f"{options.rounds} rounds\n\n"
        "| | against | Thaw | ratio | Thaw, float32 | ratio |\n"
        "|---|---|---|---|---|---|",
        flush=True,
    )
    for part in options.only:
        for row in PARTS[part](options):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
