"""Labels that may be wrong, ranked; no picture is left out for that."""

import numpy as np

from thaw.audit.neighbours import MOST_ASKED, find_neighbours
from thaw.audit.opinions import Labels, judge_labels
from thaw.audit.table import count_doubts, write_audit
from thaw.data.activations import Features
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import POOLED
from thaw.data.folds import find_sets
from thaw.data.splits import SPLITS
from thaw.files.arrays import open_array
from thaw.files.phrases import format_count
from thaw.files.text import write_json
from thaw.network.plan import Architecture
from thaw.run.console import say, say_wrote
from thaw.stage.environment import describe_environment
from thaw.stage.runner import run_stage

PREPARED = "data/prepared"
FEATURES = "data/features"
ARCHITECTURE = "data/features/architecture.json"
HELD_OUT = "data/heldout"
AUDIT = "metrics/audit.csv"
DETAILS = "metrics/details/audit.json"


def main() -> None:
    dataset, features = Dataset(PREPARED), Features(FEATURES)
    last = Architecture.read(ARCHITECTURE).last
    index = [
        {"split": split, **entry}
        for split in SPLITS
        for entry in dataset.read_index(split)
    ]
    splits = np.array([entry["split"] for entry in index])
    labels = Labels(
        np.concatenate([features.open_labels(split) for split in SPLITS]),
        find_sets(index),
        splits == "train",
        splits == "test",
    )
    logits = [open_array(f"{HELD_OUT}/{split}.npy") for split in SPLITS]
    say(
        f"reading {FEATURES}, {HELD_OUT}: {format_count(len(index), 'image')}, "
        f"{len(features.classes)} classes"
    )
    opinions = judge_labels(np.concatenate(logits), labels)
    first = opinions.order[:MOST_ASKED]
    neighbours = find_neighbours(
        [features.open_views(POOLED, s)[0][:, last] for s in SPLITS],
        labels,
        first,
        opinions.suggested[first],
    )
    write_audit(AUDIT, index, features.classes, opinions, neighbours)
    counts = count_doubts(index, features.classes, opinions)
    write_json(DETAILS, {**counts, "environment": describe_environment()})
    say(f"{format_count(counts['doubtful'], 'label')} may be wrong")
    say_wrote(AUDIT, DETAILS)


if __name__ == "__main__":
    run_stage(main)
