"""How many of the labels that `audit` ranks first were planted wrong.

    python -m benchmarks.audit DATA --weights FILE

DATA holds the folders clothing, sign-digits and traffic-signs; FILE the
ImageNet weights of EfficientNetB4 without its top. A share of the labels of all
splits is changed: to any other class, or to the one that the class is mistaken
for. docs/labels.md has the table that this prints.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.claims.lab import SETS, SPLITS, Lab
from benchmarks.project import ROOT
from thaw.audit.neighbours import MOST_ASKED, find_neighbours
from thaw.audit.opinions import Labels, Opinions, judge_labels
from thaw.data.efficientnet import POOLED
from thaw.data.folds import join_pictures
from thaw.linear.ridge import fit_ridge
from thaw.network.thawing import describe_backbone

SIZES = {"clothing": 224, "traffic-signs": 128, "sign-digits": 128}
SHARE = 0.05  # of the labels
SEEDS = 3
FIRST = 50  # rows that somebody looks at


class Subject:
    """One set: its features, and its labels as they are.

    Args:
        lab: that prepares it.
    """

    def __init__(self, lab: Lab):
        gathered = lab.gather_all(POOLED, 1)
        self.features = [gathered[split].arrays[0] for split in SPLITS]
        given = [lab.open_labels(split) for split in SPLITS]
        index = [x for s in SPLITS for x in lab.dataset.read_index(s)]
        sets = join_pictures(
            [entry["group"] for entry in index],
            [entry["copies"] for entry in index],
        )
        split = np.repeat(np.arange(3), list(map(len, given)))
        given = np.concatenate(given)
        self.labels = Labels(given, sets, split == 0, split == 2)
        self.classes = lab.classes
        self.about = describe_backbone(lab.build_backbone())

    def audit(self, given: np.ndarray) -> Opinions:
        """All that the stage computes, for these labels."""
        about = self.labels
        labels = Labels(given, about.sets, about.trained, about.tested)
        columns, widths = self.about.pick_columns("all")
        trained = np.flatnonzero(about.trained)
        head = fit_ridge(
            self.features[:1],
            columns,
            widths,
            given[trained],
            about.sets[trained],
            self.classes,
        )
        logits = [head.held_out]
        logits += [head.score(x, columns) for x in self.features[1:]]
        opinions = judge_labels(np.concatenate(logits), labels)
        first = opinions.order[:MOST_ASKED]
        last = [x[:, self.about.last] for x in self.features]
        find_neighbours(last, labels, first, opinions.suggested[first])
        return opinions

    def find_confusions(self) -> np.ndarray:
        """(classes,) int: what each class is mistaken for."""
        opinions = self.audit(self.labels.given)
        mistaken = np.zeros((self.classes, self.classes))
        pairs = opinions.given, opinions.suggested
        np.add.at(mistaken, pairs, opinions.suggested_probability)
        return mistaken.argmax(axis=1)


def plant(
    given: np.ndarray, confusions: np.ndarray, confused: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels with some changed, and which (planted,) int."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(given), round(SHARE * len(given)), replace=False)
    changed, classes = given.copy(), len(confusions)
    others = (given[rows] + rng.integers(1, classes, len(rows))) % classes
    changed[rows] = confusions[given[rows]] if confused else others
    return changed, rows


def measure(lab: Lab) -> Iterator[str]:
    """Lines of the table for one set."""
    subject = Subject(lab)
    given, confusions = subject.labels.given, subject.find_confusions()
    for confused in (False, True):
        runs = []
        for seed in range(SEEDS):
            changed, rows = plant(given, confusions, confused, seed)
            start, busy = time.perf_counter(), time.process_time()
            opinions = subject.audit(changed)
            wall = time.perf_counter() - start
            busy = time.process_time() - busy
            hits = np.isin(opinions.order, rows)
            found = np.isin(np.flatnonzero(opinions.doubtful), rows)
            runs.append(
                (
                    hits[:FIRST].mean(),
                    hits[: 2 * len(rows)].sum() / len(rows),
                    len(found),
                    found.mean(),
                    wall,
                    busy,
                )
            )
        first, twice, doubtful, right, wall, busy = np.mean(runs, axis=0)
        yield (
            f"| {lab.set.name}, {lab.image_size} px | {len(given):,} | "
            f"{'the class it is mistaken for' if confused else 'any class'} | "
            f"{first:.0%} | {twice:.0%} | {doubtful:.0f} of {len(rows)}, "
            f"{right:.0%} | {wall:.0f} | {busy:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=ROOT / ".dvc/tmp/audit")
    parser.add_argument("--only", nargs="+", choices=SIZES, default=SIZES)
    options = parser.parse_args()
    print(
        f"| set | images | changed to | of the first {FIRST} | found in twice "
        "the planted number | doubtful, and planted of them | seconds | "
        "processor's |\n|---|---|---|---|---|---|---|---|"
    )
    for name in options.only:
        lab = Lab(
            SETS[name],
            options.data.resolve(),
            options.weights.resolve(),
            options.work.resolve(),
            SIZES[name],
        )
        for line in measure(lab):
            print(line, flush=True)


if __name__ == "__main__":
    main()
