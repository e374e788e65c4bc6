"""What heads say of labels that they were not fitted to."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Opinions:
    """Probabilities by the head that a picture was left out of.

    Attributes:
        given: (n,) int, the label that the picture has.
        probability: (n,), of that label; NaN if no other picture of the class
            was trained on.
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
class Labels:
    """The labels to judge, rows of all splits one behind the other.

    Attributes:
        given: (n,) int.
        sets: (n,) int, of pictures that are left out together.
        trained: (n,) bool, those that heads are fitted to.
        tested: (n,) bool, those of test.
    """

    given: np.ndarray
    sets: np.ndarray
    trained: np.ndarray
    tested: np.ndarray

    def can_judge(self) -> np.ndarray:
        """(n,) bool: whether another set that was trained on has the label."""
        kept = np.stack([self.given, self.sets], axis=1)[self.trained]
        size = 1 + self.given.max()
        sets_of = np.bincount(np.unique(kept, axis=0)[:, 0], minlength=size)
        return sets_of[self.given] - self.trained > 0


def judge_labels(logits: np.ndarray, labels: Labels) -> Opinions:
    """What a head says that no picture was fitted to when it was judged.

    Args:
        logits: (n, classes) of all rows: of the head that a training image was
            left out of, with its copies and its group.
        labels: of the rows.
    """
    from scipy.special import softmax

    given, suggested, suggested_probability = split_opinion(
        softmax(logits.astype(np.float64), axis=1), labels.given
    )
    probability = np.where(labels.can_judge(), given, np.nan)
    return Opinions(labels.given, probability, suggested, suggested_probability)


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
