"""Pictures whose features are nearest, by the cosine between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.audit.opinions import Labels
from thaw.data.rows import gather_rows, iterate_blocks

VOTERS = 10
SHOWN = 3  # of the suggested class
MOST_ASKED = 10_000  # rows whose neighbours are looked for


@dataclass(frozen=True)
class Neighbours:
    """What the nearest pictures of train and validation say of some rows.

    Neither a picture itself nor one of its set is among its neighbours.

    Attributes:
        rows: (m,) int, those that were asked for.
        given_vote, suggested_vote: (m,) share of the `VOTERS` nearest pictures
            that have the label.
        nearest: (m, `SHOWN`) int, rows of the nearest pictures that have the
            suggested label; -1 where there are fewer.
    """

    rows: np.ndarray
    given_vote: np.ndarray
    suggested_vote: np.ndarray
    nearest: np.ndarray


class Nearest:
    """The nearest so far of all pictures that were offered.

    Args:
        rows: how many look for neighbours.
        most: how many are kept.
    """

    def __init__(self, rows: int, most: int):
        self.similarity = np.full((rows, most), -np.inf, np.float32)
        self.found = np.full((rows, most), -1)

    def offer(self, similarity: np.ndarray, offered: np.ndarray) -> None:
        """Keeps those that are nearer.

        Args:
            similarity: (rows, n), minus infinity of those that don't count.
            offered: (n,) int, what is offered.
        """
        most = self.found.shape[1]
        everything = np.hstack([self.similarity, similarity])
        best = np.argpartition(-everything, most - 1, axis=1)[:, :most]
        values = np.take_along_axis(everything, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        self.similarity = np.take_along_axis(everything, best, axis=1)
        old = np.take_along_axis(self.found, np.minimum(best, most - 1), axis=1)
        new = offered[np.maximum(best - most, 0)]
        self.found = np.where(best < most, old, new)
        self.found[np.isinf(self.similarity)] = -1


def find_neighbours(
    features: Sequence[np.ndarray],
    labels: Labels,
    rows: np.ndarray,
    suggested: np.ndarray,
) -> Neighbours:
    """Finds the nearest pictures of some rows.

    Args:
        features: (n, size) of each split, mapped.
        labels: of all rows.
        rows: (m,) int, those to find neighbours of.
        suggested: (m,) int, the label suggested for each.
    """
    asked = normalize(gather_rows(features, rows))
    voters = Nearest(len(rows), VOTERS)
    alike = Nearest(len(rows), SHOWN)
    for place, block in iterate_blocks(features):
        offered = np.arange(place.start, place.stop)
        kept = ~labels.tested[offered]
        if not kept.any():
            continue
        offered = offered[kept]
        similarity = asked @ normalize(block[kept]).T
        related = labels.sets[rows, None] == labels.sets[offered]
        similarity[related] = -np.inf
        voters.offer(similarity, offered)
        similarity[suggested[:, None] != labels.given[offered]] = -np.inf
        alike.offer(similarity, offered)
    voted = voters.found >= 0
    counts = np.maximum(voted.sum(axis=1), 1)
    votes = np.where(voted, labels.given[voters.found], -1)
    return Neighbours(
        rows,
        (votes == labels.given[rows, None]).sum(axis=1) / counts,
        (votes == suggested[:, None]).sum(axis=1) / counts,
        alike.found,
    )


def normalize(features: np.ndarray) -> np.ndarray:
    """Rows (n, size) at length 1; a row of zeros stays."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)
