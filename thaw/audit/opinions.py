"""What heads say of labels that they were not fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import numpy as np

from thaw.audit.discriminant import Discriminant, Moments, fit_discriminant
from thaw.audit.rows import gather_rows, iterate_blocks
from thaw.data.folds import deal_folds
from thaw.network.temperature import fit_temperature

REPEATS = 3  # times that the pictures are dealt to folds anew
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
class Opinions:
    """Mean probabilities by the heads that a picture was held out from.

    Attributes:
        given: (n,) int, the label that the picture has.
        probability: (n,), of that label; NaN where a head was fitted to no
            other picture of the class, so that it can't tell.
        suggested: (n,) int, the likeliest other label.
        suggested_probability: (n,), of that.
    """

    given: np.ndarray
    probability: np.ndarray
    suggested: np.ndarray
    suggested_probability: np.ndarray

    @cached_property
    def order(self) -> np.ndarray:
        """(n,) int: the doubtful rows, then the others; in each, the least
        probability of the given label first."""
        return np.lexsort((self.probability, ~self.doubtful))

    @property
    def judged(self) -> np.ndarray:
        """(n,) bool."""
        return ~np.isnan(self.probability)

    @cached_property
    def doubtful(self) -> np.ndarray:
        """(n,) bool: whether the suggested label is the likelier one, and as
        likely as it is for the pictures that have it, in the mean.

        The thresholds are those of confident learning: Northcutt et al.,
        Confident Learning, JAIR 70, 2021.
        """
        labels, known = self.given[self.judged], self.probability[self.judged]
        size = 1 + max(self.given.max(), self.suggested.max())
        counts = np.bincount(labels, minlength=size)
        sums = np.bincount(labels, known, minlength=size)
        thresholds = np.where(counts, sums / np.maximum(counts, 1), np.inf)
        likelier = self.suggested_probability > self.probability
        enough = self.suggested_probability >= thresholds[self.suggested]
        return likelier & enough


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


def judge_labels(
    features: Sequence[np.ndarray], labels: Labels, folds: int
) -> Opinions:
    """Has heads judge the pictures that they were not fitted to.

    Pictures of train and validation are dealt to folds; the heads of one fold
    are fitted to all others. Test is judged by heads fitted to all of these.

    Args:
        features: (rows, size) of each split, mapped.
        labels: of all rows.
        folds: 2 or more.
    """
    rounds = [
        fit_round(features, labels, folds, seed) for seed in range(REPEATS)
    ]
    known = np.all([each.know(labels.given) for each in rounds], axis=0)
    temperature = calibrate_round(
        rounds[0], features, labels.given, known & ~labels.tested
    )
    parts = []
    for place, block in iterate_blocks(features):
        rows = np.arange(place.start, place.stop)
        mean = average_rounds(rounds, rows, block, temperature)
        parts.append(split_opinion(mean, labels.given[rows]))
    given, suggested, suggested_probability = map(
        np.concatenate, zip(*parts, strict=True)
    )
    probability = np.where(known, given, np.nan)
    return Opinions(labels.given, probability, suggested, suggested_probability)


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
) -> float:
    """The temperature of the heads, by rows that they were kept from.

    Args:
        fitted: the heads.
        features: (rows, size) of each split.
        labels: (n,) int of all rows.
        asked: (n,) bool, the rows to fit it to; too many are thinned out.
    """
    rows = np.flatnonzero(asked)
    rows = rows[:: 1 + len(rows) // MOST_CALIBRATED]
    if not len(rows):
        return 1.0
    logits = fitted.score(rows, gather_rows(features, rows))
    return fit_temperature(logits, labels[rows])


def average_rounds(
    rounds: Sequence[Round],
    rows: np.ndarray,
    features: np.ndarray,
    temperature: float,
) -> np.ndarray:
    """Mean probabilities (len(rows), classes) of all rounds."""
    from scipy.special import softmax

    return sum(
        softmax(each.score(rows, features) / temperature, axis=1)
        for each in rounds
    ) / len(rounds)


def split_opinion(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of probabilities (n, classes): that of the label, the likeliest other
    label, and its probability, (n,) each."""
    rows = np.arange(len(labels))
    given = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -1
    suggested = others.argmax(axis=1)
    return given, suggested, others[rows, suggested]
