"""Copies of a picture that lie in two splits, or under two labels."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thaw.prepare.near_duplicates import find_duplicates, pair_up


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
        alike: picture to near-duplicates of it, and how similar they are.
        fingerprints: (n, ...) uint8, to look for more of them where many
            pictures are alike.
    """

    def __init__(
        self,
        pictures: np.ndarray,
        alike: dict[int, dict[int, float]],
        fingerprints: np.ndarray,
    ):
        self.pictures, self.alike = pictures, alike
        self.fingerprints = fingerprints

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
        rows = self._list_copies(used)
        # Picture to key to the first such row.
        where: dict[int, dict[int, int]] = defaultdict(dict)
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
        for row, other, similarity in self._complete(rows, keys, pairs):
            pairs[min(row, other), max(row, other)] = similarity
        return [Pair(*rows, pairs[rows]) for rows in sorted(pairs)]

    def _list_copies(self, used: np.ndarray) -> np.ndarray:
        """Rows that are used and have any copy."""
        several = np.bincount(self.pictures) > 1
        several[list(self.alike)] = True
        return np.flatnonzero(used & several[self.pictures])

    def _complete(
        self, rows: np.ndarray, keys: np.ndarray, pairs: Iterable
    ) -> Iterator[tuple[int, int, float]]:
        """Finds partners for rows that have look-alikes under another key, none
        of them among the few nearest that were found."""
        paired = {(a, keys[b]) for a, b in pairs}
        paired |= {(b, keys[a]) for a, b in pairs}
        for cluster in self._cluster(rows):
            for key in np.unique(keys[cluster]):
                lacking = [
                    row
                    for row in cluster[keys[cluster] != key].tolist()
                    if (row, key) not in paired
                ]
                if lacking:
                    others = cluster[keys[cluster] == key]
                    yield from pair_up(
                        self.fingerprints, np.array(lacking), others
                    )

    @cached_property
    def clusters(self) -> np.ndarray:
        """(n,) int, equal for rows that are connected by copies of copies."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        links = [(i, j) for i, others in self.alike.items() for j in others]
        ends = np.array(links, int).reshape(-1, 2).T
        count = self.pictures.max(initial=0) + 1
        graph = coo_array((np.ones(len(links)), tuple(ends)), (count, count))
        _, clusters = connected_components(graph, directed=False)
        return clusters[self.pictures]

    def name_sets(self, names: np.ndarray) -> np.ndarray:
        """(n,): of rows connected by copies the name of the first, else b"".

        Args:
            names: (n,) bytes, of the rows' pictures.
        """
        sizes = np.bincount(self.clusters)
        _, first, places = np.unique(
            self.clusters, return_index=True, return_inverse=True
        )
        alone = sizes[self.clusters] == 1
        return np.where(alone, b"", names[first[places]])

    def _cluster(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows with near-duplicates, by cluster."""
        alike = np.array(list(self.alike), int)
        rows = rows[np.isin(self.pictures[rows], alike)]
        order = np.argsort(self.clusters[rows], kind="stable")
        sizes = np.unique(self.clusters[rows], return_counts=True)[1]
        return np.split(rows[order], np.cumsum(sizes)[:-1])


def find_copies(names: np.ndarray, fingerprints: np.ndarray) -> Copies:
    """Looks for copies among all images.

    Args:
        names: (n,) bytes, equal for equal pictures.
        fingerprints: (n, ...) uint8, from `make_fingerprint`, mapped.
    """
    _, pictures = np.unique(names, return_inverse=True)
    alike: dict[int, dict[int, float]] = defaultdict(dict)
    for i, j, similarity in find_duplicates(fingerprints):
        one, other = pictures[i], pictures[j]
        if one != other:
            alike[one][other] = alike[other][one] = similarity
    return Copies(pictures, alike, fingerprints)
