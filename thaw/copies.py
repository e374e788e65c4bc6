"""Copies of a picture that lie in two splits, or under two labels."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from thaw.duplicates import find_duplicates


@dataclass(frozen=True)
class Pair:
    """Two rows of the data that show the same picture, or nearly."""

    first: int
    second: int
    similarity: float  # 1: equal, else less

    @property
    def rows(self) -> tuple[int, int]:
        return self.first, self.second


class Copies:
    """Which rows show the same picture, and which pictures are alike.

    Args:
        pictures: (n,) int, equal for rows that show the same one.
        alike: picture to those that are near-duplicates of it, and how
            similar they are.
    """

    def __init__(
        self, pictures: np.ndarray, alike: dict[int, dict[int, float]]
    ):
        self.pictures, self.alike = pictures, alike

    def pair_across(self, keys: np.ndarray, used: np.ndarray) -> list[Pair]:
        """Pairs of copies that differ in their key.

        Each copy is paired with one row for each other key, so that thousands
        of copies make thousands of pairs, not millions.

        Args:
            keys: (n,) int, such as labels or splits.
            used: (n,) bool, rows to look at.

        Returns:
            Pairs in order of their rows, the first one under the second.
        """
        several = np.bincount(self.pictures) > 1
        several[list(self.alike)] = True
        rows = np.flatnonzero(used & several[self.pictures])
        where = defaultdict(dict)  # picture to key to the first such row
        for row in rows.tolist():
            where[self.pictures[row]].setdefault(keys[row], row)
        pairs = {}
        for row in rows.tolist():
            own = self.pictures[row]
            alike = self.alike.get(own, {})
            for picture, similarity in [(own, 1.0), *alike.items()]:
                for key, other in where[picture].items():
                    if key != keys[row]:
                        pairs[min(row, other), max(row, other)] = similarity
        return [Pair(*rows, pairs[rows]) for rows in sorted(pairs)]


def find_copies(names: np.ndarray, fingerprints: np.ndarray) -> Copies:
    """Looks for copies among all images.

    Args:
        names: (n,) bytes, equal for equal pictures.
        fingerprints: (n, ...) uint8, from `make_fingerprint`, mapped.
    """
    _, pictures = np.unique(names, return_inverse=True)
    alike = defaultdict(dict)
    for i, j, similarity in find_duplicates(fingerprints):
        one, other = pictures[i], pictures[j]
        if one != other:
            alike[one][other] = alike[other][one] = similarity
    return Copies(pictures, alike)
