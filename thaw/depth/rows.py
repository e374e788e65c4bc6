"""Which images a training in the race sees, and which judge it.

Rows count the images of train, then those of validation. Test is never opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from thaw.data.dataset import Dataset, Gather
from thaw.data.folds import deal_folds, find_sets
from thaw.data.splits import TRAINED

# Validation images from which on they alone judge. Fewer are too few: all
# images judge then, each by a training that has not seen it.
ENOUGH = 300
FOLDS = 2  # each training sees half of the images, so that all cost little


@dataclass(frozen=True)
class Fold:
    """A part of the images to train on and another one that judges.

    Attributes:
        trained, judged: (n,) int, rows.
        whole: whether they are train and validation as they are.
    """

    trained: np.ndarray
    judged: np.ndarray
    whole: bool


def make_folds(
    dataset: Dataset, labels: Mapping[str, np.ndarray], seed: int
) -> list[Fold]:
    """Train and validation as they are, or two halves of both together.

    Groups and copies lie in one half.

    Args:
        dataset: says which images belong together.
        labels: (n,) int, of both splits.
        seed: of the halves.
    """
    train, validation = (len(labels[split]) for split in TRAINED)
    rows = np.arange(train + validation)
    if validation >= ENOUGH:
        return [Fold(rows[:train], rows[train:], whole=True)]
    index = [row for split in TRAINED for row in dataset.read_index(split)]
    joined = np.concatenate([labels[split] for split in TRAINED])
    number = deal_folds(joined, find_sets(index), FOLDS, seed)
    return [
        Fold(rows[number != fold], rows[number == fold], whole=False)
        for fold in range(FOLDS)
    ]


def join_splits(gather: Mapping[str, Gather], first: int) -> Gather:
    """Gathers from both splits; images of validation have one view.

    Args:
        gather: of both splits.
        first: row of the first image of validation.
    """
    train, validation = (gather[split] for split in TRAINED)

    def gather_joined(rows: np.ndarray, view_numbers: np.ndarray) -> np.ndarray:
        early = rows < first
        late = rows[~early] - first
        parts = (
            train(rows[early], view_numbers[early]),
            validation(late, np.zeros(len(late), int)),
        )
        joined = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
        joined[early], joined[~early] = parts
        return joined

    return gather_joined


def pick_rows(gather: Gather, chosen: np.ndarray) -> Gather:
    """Gathers from some rows, which count from 0 again."""
    return lambda rows, view_numbers: gather(chosen[rows], view_numbers)
