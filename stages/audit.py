"""Labels that may be wrong, ranked; no picture is left out for that."""

import numpy as np

from thaw.audit.neighbours import MOST_ASKED, find_neighbours
from thaw.audit.opinions import judge_labels
from thaw.audit.table import COLUMNS, count_doubts, write_audit
from thaw.data.activations import Features
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import POOLED
from thaw.data.folds import find_sets
from thaw.data.splits import SPLITS
from thaw.files.phrases import format_count
from thaw.files.tables import write_table
from thaw.files.text import write_json
from thaw.network.rounds import Labels
from thaw.run import params
from thaw.run.console import say, say_wrote
from thaw.stage.environment import describe_environment
from thaw.stage.runner import run_stage

PREPARED = "data/prepared"
FEATURES = "data/features"
AUDIT = "metrics/audit.csv"
DETAILS = "metrics/details/audit.json"


def main() -> None:
    folds = params.load().audit.folds
    counts = audit_labels(folds) if folds else skip_audit()
    write_json(DETAILS, {**counts, "environment": describe_environment()})
    say_wrote(AUDIT, DETAILS)


def skip_audit() -> dict:
    """Writes a table without rows; returns counts of nothing."""
    write_table(AUDIT, COLUMNS, [])
    return {"images": 0, "doubtful": 0}


def audit_labels(folds: int) -> dict:
    """Writes the table; returns counts of what is doubtful."""
    dataset, features = Dataset(PREPARED), Features(FEATURES)
    index = [
        {"split": split, **entry}
        for split in SPLITS
        for entry in dataset.read_index(split)
    ]
    labels = Labels(
        np.concatenate([features.open_labels(split) for split in SPLITS]),
        find_sets(index),
        np.array([entry["split"] == "test" for entry in index]),
        len(features.classes),
    )
    arrays = [features.open_views(POOLED, split)[0] for split in SPLITS]
    say(
        f"reading {FEATURES}: {format_count(len(index), 'image')}, "
        f"{len(features.classes)} classes, {folds} folds"
    )
    opinions = judge_labels(arrays, labels, folds)
    first = opinions.order[:MOST_ASKED]
    neighbours = find_neighbours(
        arrays, labels, first, opinions.suggested[first]
    )
    write_audit(AUDIT, index, features.classes, opinions, neighbours)
    counts = count_doubts(index, features.classes, opinions)
    say(f"{format_count(counts['doubtful'], 'label')} may be wrong")
    return counts


if __name__ == "__main__":
    run_stage(main)
