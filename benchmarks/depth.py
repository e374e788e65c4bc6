"""The race for a depth against a grid of whole runs, on any photographs.

    python -m benchmarks.depth DATA --weights FILE --name EfficientNetB4 \
        [--image-size 128] [--seeds 1 2 3] [--group PATTERN]

For each seed, which also cuts the splits, it races (`finetune.blocks: auto`),
then runs every depth of the race by its whole schedule. Prints the losses on
test, after temperature, and whether that of the race's choice is within one
standard error, paired by image, of the best; then what the race took against
ten epochs of its deepest training.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.project import Project
from thaw.depth.judge import rank
from thaw.files.tables import read_table
from thaw.network.temperature import calibrate, measure_losses


def read_losses(project: Project) -> np.ndarray:
    """Of the shipped model on test, (n,)."""
    folder = project.folder
    details = json.loads((folder / "metrics/details/evaluate.json").read_text())
    probabilities = calibrate(
        np.load(folder / "metrics/probabilities/finetuned.npy"),
        details["finetuned"]["temperature"],
    )
    classes = json.loads((folder / "data/prepared/classes.json").read_text())
    rows = read_table(folder / "metrics/predictions.csv")
    labels = np.array([classes.index(row["actual"]) for row in rows])
    return measure_losses(np.log(probabilities + 1e-30), labels, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="default: digits")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--name", default="EfficientNetB0")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--group")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder, "project"))
        if arguments.data:
            project.set(
                prepare__source="folder", prepare__group=arguments.group
            )
            project.use(
                arguments.data.absolute(),
                arguments.weights.absolute(),
                arguments.image_size,
            )
            project.set(
                backbone__name=arguments.name,
                augment__horizontal_flip=arguments.flip,
            )
        close = [measure_seed(project, seed) for seed in arguments.seeds]
    print(f"{sum(close)} of {len(close)} choices are within one error")


def measure_seed(project: Project, seed: int) -> bool:
    """Prints a race and its grid; whether the choice is as good as the best."""
    project.set(seed=seed, prepare__seed=seed, finetune__blocks="auto")
    project.repro("head")
    spent = project.time_repro("--single-item", "depth")
    folder = project.folder
    chosen = str(json.loads((folder / "data/depth.json").read_text()))
    depths = [row["blocks"] for row in read_table(folder / "plots/depths.csv")]
    losses, epoch = [], 0.0
    for depth in depths:
        project.set(finetune__blocks=int(depth) if depth.isdigit() else depth)
        project.repro("prefix")
        start = time.perf_counter()
        project.repro("--single-item", "finetune")
        details = json.loads(
            (folder / "metrics/details/finetune.json").read_text()
        )
        ran = details["epochs"] or 1
        epoch = (time.perf_counter() - start) / ran
        project.repro("evaluate")
        losses.append(read_losses(project))
        print(
            f"seed {seed}, {depth:>3}: loss {losses[-1].mean():.3f}, "
            f"shipped {details['shipped']}",
            flush=True,
        )
    ranking = rank(losses)
    is_close = bool(ranking.is_close[depths.index(chosen)])
    print(
        f"seed {seed}: the race chose {chosen}, best is "
        f"{depths[ranking.best]}, within one error: {is_close}; {spent:.0f} s, "
        f"{spent / (10 * epoch):.2f} times ten epochs of the deepest",
        flush=True,
    )
    return is_close


if __name__ == "__main__":
    main()
