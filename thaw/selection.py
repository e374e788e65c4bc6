"""Which images are used, and in which split."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from thaw.copies import Pair, find_copies
from thaw.decoding import Rows
from thaw.errors import InputError
from thaw.splits import TRAIN, assign_splits, find_straddlers


@dataclass(frozen=True)
class Selection:
    """What came of all images that could be decoded.

    Attributes:
        used: (n,) bool.
        splits: (n,) indices into `SPLITS`; of unused images, where they would
            be.
        conflicts: pairs of copies under two labels.
        leaks: pairs of copies in two splits, conflicts left out aside.
        removed: rows of copies that were removed from train.
        left_out: rows of copies under two labels that were left out.
        straddlers: rows that were left out as their group lies in another
            split.
        exceptions: a sentence for every image that was moved.
    """

    used: np.ndarray
    splits: np.ndarray
    conflicts: list[Pair]
    leaks: list[Pair]
    removed: np.ndarray
    left_out: np.ndarray
    straddlers: np.ndarray
    exceptions: list[str]

    @property
    def pairs(self) -> list[Pair]:
        """Conflicts, then leaks; the least alike first, where a mistake would
        be."""
        leaks = set(self.leaks).difference(self.conflicts)
        return [
            *sorted(self.conflicts, key=sort_by_similarity),
            *sorted(leaks, key=sort_by_similarity),
        ]

    def order(self, pair: Pair) -> list[int]:
        """Its rows, one in train first."""
        return sorted(pair.rows, key=self.splits.__getitem__)

    def decide(self, pair: Pair) -> str:
        """What became of a pair."""
        if np.isin(pair.rows, self.left_out).any():
            return "both left out"
        if np.isin(pair.rows, self.removed).any():
            return "removed from train"
        if np.isin(pair.rows, self.straddlers).any():
            return "left out with its group"
        return "kept"


def select_images(
    rows: Rows, shares: dict[str, float], duplicates: str
) -> Selection:
    """Assigns splits and keeps copies from being in two of them.

    Args:
        rows: all that could be decoded.
        shares: split to share of the training images, for those to be cut.
        duplicates: "remove" takes copies of held-out images from train and
            leaves out copies under two labels; "keep" leaves them; "fail"
            refuses them.

    Raises:
        InputError: where a class has too few images, or copies are refused.
    """
    copies = find_copies(rows.pictures, rows.open_fingerprints())
    used = np.ones(len(rows.labels), bool)
    conflicts = copies.pair_across(rows.labels, used)
    left_out = list_rows(conflicts if duplicates == "remove" else [])
    used[left_out] = False
    straddlers = find_straddlers(rows.hashes, rows.splits, used & rows.grouped)
    used[straddlers] = False
    splits, exceptions = assign_splits(
        rows.hashes, rows.labels, rows.splits, used, shares, rows.classes
    )
    leaks = copies.pair_across(splits, used)
    removed = list_rows(leaks if duplicates == "remove" else [])
    removed = removed[splits[removed] == TRAIN]
    used[removed] = False
    if duplicates == "fail" and (pairs := [*conflicts, *leaks]):
        refuse_copies(rows, pairs)
    check_classes(rows.labels[used & (splits == TRAIN)], rows.classes)
    return Selection(
        used,
        splits,
        conflicts,
        leaks,
        removed,
        left_out,
        straddlers,
        exceptions,
    )


def sort_by_similarity(pair: Pair) -> tuple:
    return pair.similarity, pair.rows


def list_rows(pairs: Iterable[Pair]) -> np.ndarray:
    """Every row that is in a pair, (n,) int, ascending."""
    return np.unique(np.array([row for p in pairs for row in p.rows], int))


def refuse_copies(rows: Rows, pairs: list[Pair]) -> None:
    one, other = rows.pick_entries(pairs[0].rows)
    more = f", and {len(pairs) - 1} more such pairs" if len(pairs) > 1 else ""
    raise InputError(
        f"{one['path']} and {other['path']} are copies in two splits or under "
        f"two labels{more} (prepare.duplicates: fail)"
    )


def check_classes(labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raises InputError for a class without a label."""
    count = np.bincount(labels, minlength=len(classes))
    if not count.all():
        raise InputError(
            f"class {classes[count.argmin()]} has no image left in train: all "
            "are copies of images in validation or test, or of their groups"
        )
