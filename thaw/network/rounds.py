"""Discriminants of all folds, each fitted to the rows of the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from thaw.data.folds import deal_folds
from thaw.data.rows import gather_rows, iterate_blocks
from thaw.linear.temperature import fit_temperature
from thaw.network.discriminant import Discriminant, Moments, fit_discriminant

MOST_CALIBRATED = 4096  # rows that the temperature is fitted to


@dataclass(frozen=True)
class Labels:
    """The labels to judge, rows of all splits one behind the other.

    Attributes:
        given: (n,) int.
        sets: (n,) int, of pictures that are held out together.
        tested: (n,) bool: those of test, which no head is fitted to.
        classes: how many there are.
    """

    given: np.ndarray
    sets: np.ndarray
    tested: np.ndarray
    classes: int


@dataclass(frozen=True)
class Round:
    """The heads of one deal.

    Attributes:
        fold: (n,) int of each row; those of test have one more than there are.
        heads: of each fold, fitted to all others but test.
    """

    fold: np.ndarray
    heads: list[Discriminant]

    def score(self, rows: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Logits (len(rows), classes) by the head that each was kept from."""
        logits = np.empty((len(rows), len(self.heads[0].bias)))
        for number in np.unique(self.fold[rows]):
            held = self.fold[rows] == number
            logits[held] = self.heads[number].score(features[held])
        return logits

    def know(self, labels: np.ndarray) -> np.ndarray:
        """(n,) bool: whether a row's head knows its label."""
        known = np.stack([head.known for head in self.heads])
        return known[self.fold, labels]


def fit_round(
    features: Sequence[np.ndarray], labels: Labels, folds: int, seed: int
) -> Round:
    """Deals train and validation to folds, and fits the heads.

    Args:
        features: (rows, size) of each split.
        labels: of all rows.
        folds: how many there are.
        seed: of the deal.
    """
    fold = np.full(len(labels.given), folds)
    kept = ~labels.tested
    fold[kept] = deal_folds(labels.given[kept], labels.sets[kept], folds, seed)
    size = features[0].shape[1]
    held = [Moments.zero(labels.classes, size) for _ in range(folds)]
    for rows, block in iterate_blocks(features):
        for number, moments in enumerate(held):
            chosen = fold[rows] == number
            moments.add(block[chosen], labels.given[rows][chosen])
    total = reduce(add, held)
    heads = [fit_discriminant(total - moments) for moments in held]
    return Round(fold, [*heads, fit_discriminant(total)])


def calibrate_round(
    fitted: Round,
    features: Sequence[np.ndarray],
    labels: np.ndarray,
    asked: np.ndarray,
    fit: Callable[[np.ndarray, np.ndarray], float] = fit_temperature,
) -> float:
    """The temperature of the heads, by rows that they were kept from.

    Args:
        fitted: the heads.
        features: (rows, size) of each split.
        labels: (n,) int of all rows.
        asked: (n,) bool, the rows to fit it to; too many are thinned out.
        fit: takes logits and labels.
    """
    rows = np.flatnonzero(asked)
    rows = rows[:: 1 + len(rows) // MOST_CALIBRATED]
    if not len(rows):
        return 1.0
    logits = fitted.score(rows, gather_rows(features, rows))
    return fit(logits, labels[rows])
