"""Which of several trainings is best on validation, and what is as good.

Trainings are compared image by image: most of what makes an image hard is the
same for all of them, and falls out of the difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """Trainings and how far each is behind the best one.

    Attributes:
        losses: (trainings,), the mean over images.
        errors: (trainings,), standard errors of these means.
        behind: (trainings,), mean loss beyond that of the best one.
        behind_errors: (trainings,), standard errors of these differences,
            paired by image; 0 for the best one.
    """

    losses: np.ndarray
    errors: np.ndarray
    behind: np.ndarray
    behind_errors: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """(trainings,) int, least loss first; the first of equals first."""
        return np.argsort(self.losses, kind="stable")

    @property
    def best(self) -> int:
        return int(self.order[0])

    @property
    def is_close(self) -> np.ndarray:
        """(trainings,) bool, whether one standard error reaches the best."""
        return self.behind <= self.behind_errors


def rank(losses: Sequence[np.ndarray]) -> Ranking:
    """Ranks trainings by their mean loss.

    Args:
        losses: of each training (n,), of the same images in the same order.
    """
    table = np.stack(losses)
    means = table.mean(axis=1)
    differences = table - table[np.argmin(means)]
    return Ranking(
        means,
        measure_errors(table),
        differences.mean(axis=1),
        measure_errors(differences),
    )


def measure_errors(values: np.ndarray) -> np.ndarray:
    """Standard errors of means over n: (trainings, n) to (trainings,)."""
    n = values.shape[1]
    if n < 2:
        return np.full(len(values), math.inf)
    return values.std(axis=1, ddof=1) / math.sqrt(n)
