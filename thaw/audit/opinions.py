"""What heads say of labels that they were not fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thaw.data.rows import iterate_blocks
from thaw.network.rounds import Labels, Round, calibrate_round, fit_round

REPEATS = 3  # times that the pictures are dealt to folds anew


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
