"""The model for production: each format re-scored by its own runtime."""

import thaw.network.on_tensorflow  # noqa: F401, I001 (before Keras)

import numpy as np

from thaw.run import params
from thaw.network.temperature import calibrate
from thaw.export.card import write_card
from thaw.run.console import run_stage, say, say_wrote
from thaw.data.dataset import Dataset
from thaw.run.environment import describe_environment
from thaw.export.formats import PATHS, write_export
from thaw.files.atomic import measure_size, new_folder
from thaw.files.text import read_json, write_json
from thaw.network.head import seed_dropout
from thaw.network.model_file import load_model, read_about
from thaw.network.plan import Plan
from thaw.export.runtimes import open_export
from thaw.prepare.sources import open_source
from thaw.export.scoring import (
    check_tolerance,
    load_originals,
    pick_rows,
    predict_each,
    score_export,
)

PREPARED = "data/prepared"
PLAN = "data/activations/plan.json"
FINETUNED = "models/finetuned.keras"
PROBABILITIES = "metrics/probabilities/finetuned.npy"
PREPARE = "metrics/details/prepare.json"
EVALUATE = "metrics/details/evaluate.json"
EXPORT = "models/export"


def main() -> None:
    p = params.load()
    dataset, about = Dataset(PREPARED), read_about(FINETUNED)
    rows = pick_rows(dataset.open_labels("test"))
    images = dataset.open_images("test")[rows]
    labels = dataset.open_labels("test")[rows]
    index = list(dataset.read_index("test"))
    model = load_model(FINETUNED, images.shape[1:], len(dataset.classes))
    seed_dropout(model, 0)  # a SavedModel keeps the seeds
    logits = np.load(PROBABILITIES)[rows]
    reference = calibrate(logits, about["temperature"])
    source = open_source(
        p.prepare.source,
        p.prepare.path,
        p.prepare.classes,
        p.prepare.name,
        p.prepare.data_dir,
    )
    originals = load_originals(source, [index[row] for row in rows])
    with new_folder(EXPORT) as folder:
        say(f"converting {FINETUNED} to {', '.join(p.export.formats)}")
        for name in p.export.formats:
            write_export(folder, name, model, about)
        say(f"scoring each on {len(rows)} test images, packed and original")
        runtimes = {
            name: open_export(folder, name) for name in p.export.formats
        }
        packed = predict_each(runtimes, images, len(rows), "packed")
        resized = predict_each(runtimes, originals, len(rows), "originals")
        scores = {
            name: score_export(packed[name], resized[name], reference, labels)
            | {"mib": round(measure_size(folder / PATHS[name]) / 2**20, 1)}
            for name in p.export.formats
        }
        check_tolerance(scores, p.export.tolerance)
        write_json(folder / "thaw.json", about)
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
            about=about,
            plan=Plan.read(PLAN),
            prepare=read_json(PREPARE),
            evaluate=read_json(EVALUATE),
            exports=scores,
            checked=len(rows),
        )
    for name, score in scores.items():
        say(
            f"{name}: accuracy {score['accuracy']:.3f}, of original images "
            f"{score['originals_accuracy']:.3f}; differs by at most "
            f"{score['max_difference']:.2g} from the model"
        )
    say_wrote(EXPORT)


if __name__ == "__main__":
    run_stage(main)
