"""The model for production: each format re-scored by its own runtime."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import thaw.network.on_tensorflow  # noqa: F401 (before Keras)
from thaw.data.dataset import Dataset
from thaw.export.card import write_card
from thaw.export.formats import FORMATS, open_export, write_export
from thaw.export.scoring import (
    check_tolerance,
    load_originals,
    pick_rows,
    predict_each,
    score_export,
)
from thaw.files.atomic import measure_size, new_folder
from thaw.files.text import read_json, write_json
from thaw.linear.temperature import calibrate
from thaw.network.head import seed_dropout
from thaw.network.model_file import load_model
from thaw.network.model_info import INFO_FILE, read_info
from thaw.network.plan import Plan
from thaw.prepare.sources import OPENING, open_source
from thaw.run import params
from thaw.run.console import say, say_wrote
from thaw.stage.environment import describe_environment
from thaw.stage.runner import run_stage

PREPARED = "data/prepared"
PLAN = "data/activations/plan.json"
FINETUNED = "models/finetuned.keras"
PROBABILITIES = "metrics/probabilities/finetuned.npy"
PREPARE = "metrics/details/prepare.json"
EVALUATE = "metrics/details/evaluate.json"
EXPORT = "models/export"


def main() -> None:
    p = params.load()
    formats: list[str] = [*p.export.formats]
    dataset, info = Dataset(PREPARED), read_info(FINETUNED)
    rows = pick_rows(dataset.open_labels("test"))
    images = dataset.open_images("test")[rows]
    model = load_model(FINETUNED, images.shape[1:], len(dataset.classes))
    seed_dropout(model, 0)  # a SavedModel keeps the seeds
    originals = open_originals(p.prepare, dataset, rows)
    with new_folder(EXPORT) as folder:
        say(f"converting {FINETUNED} to {', '.join(formats)}")
        for name in formats:
            write_export(folder, name, model, info)
        say(f"scoring each on {len(rows)} test images, packed and original")
        runtimes = {name: open_export(folder, name) for name in formats}
        packed = predict_each(runtimes, images, len(rows), "packed")
        resized = predict_each(runtimes, originals, len(rows), "originals")
        labels = dataset.open_labels("test")[rows]
        reference = calibrate(np.load(PROBABILITIES)[rows], info.temperature)
        scores = {
            name: score_export(packed[name], resized[name], reference, labels)
            | {"mib": measure_mib(folder / FORMATS[name].path)}
            for name in formats
        }
        check_tolerance(scores, p.export.tolerance)
        write_json(folder / INFO_FILE, info.to_dict())
        write_json(
            folder / "checks.json",
            {
                "images": len(rows),
                "exports": scores,
                "environment": describe_environment(),
            },
        )
        write_card(
            folder / "README.md",
            params=p,
            info=info,
            plan=Plan.read(PLAN),
            prepare=read_json(PREPARE),
            evaluate=read_json(EVALUATE),
            exports=scores,
            checked=len(rows),
        )
    say(*describe_exports(scores))
    say_wrote(EXPORT)


def open_originals(
    prepare: params.Prepare, dataset: Dataset, rows: np.ndarray
) -> Iterator[np.ndarray]:
    """The original images of some rows of the test split, one at a time."""
    source = open_source(**prepare.model_dump(include=OPENING))
    index = list(dataset.read_index("test"))
    return load_originals(source, [index[row] for row in rows])


def measure_mib(path: Path) -> float:
    return round(measure_size(path) / 2**20, 1)


def describe_exports(scores: dict[str, dict]) -> Iterator[str]:
    """A line for each export."""
    for name, score in scores.items():
        yield (
            f"{name}: accuracy {score['accuracy']:.3f}, of original images "
            f"{score['originals_accuracy']:.3f}; differs by at most "
            f"{score['max_difference']:.2g} from the model"
        )


if __name__ == "__main__":
    run_stage(main)
