"""Which images are used, and in which split."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.phrases import list_some
from thaw.prepare.assign import TRAIN, assign_splits, unite
from thaw.prepare.copies import Copies, Pair
from thaw.prepare.decode import Rows

TEST = SPLITS.index("test")


@dataclass(frozen=True)
class Selection:
    """What came of all images that could be decoded.

    Attributes:
        used: (n,) bool.
        splits: (n,) indices into `SPLITS`; of excluded images, where they would
            be; of others that are unused, what the source states.
        conflicts: pairs of copies under two labels.
        leaks: pairs of copies in two splits, conflicts left out aside.
        removed: rows that were removed as copies of what a later split holds.
        left_out: rows of copies under two labels that were left out.
        straddlers: rows that were left out as their group lies in another
            split.
        together: (n,) int, a set of copies that was cut as one, or -1.
        exceptions: a sentence for every image that was moved.
    """

    used: np.ndarray
    splits: np.ndarray
    conflicts: list[Pair]
    leaks: list[Pair]
    removed: np.ndarray
    left_out: np.ndarray
    straddlers: np.ndarray
    together: np.ndarray
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
        gone = [row for row in pair.rows if not self.used[row]]
        if not gone:
            return "kept"
        if len(gone) == 2 and np.isin(gone, self.left_out).any():
            return "both left out"
        if np.isin(gone, self.straddlers).any():
            return "left out with its group"
        return f"removed from {SPLITS[self.splits[gone[0]]]}"


def select_images(
    rows: Rows, copies: Copies, shares: dict[str, float], duplicates: str
) -> Selection:
    """Assigns splits and keeps copies and groups from being in two of them.

    A test split that the source brings stays as it is: what the others have of
    its pictures and groups goes from them, and what train has of a given
    validation split. Splits to be cut are cut from what then is left of train,
    each group with its copies as one.

    Args:
        rows: all that could be decoded.
        copies: which of them are copies.
        shares: split to share of the training images, for those to be cut.
        duplicates: "remove" does all that, and leaves out copies under two
            labels; "keep" heeds groups alone; "fail" refuses what "remove"
            would take away.

    Raises:
        InputError: where classes have too few images, or copies are refused.
    """
    heeded, removing = duplicates != "keep", duplicates == "remove"
    given = [code for code, split in enumerate(SPLITS) if split not in shares]
    splits, used = rows.splits, ~rows.excluded
    conflicts = copies.pair_across(rows.labels, used)
    left_out = list_rows(conflicts if removing else [])
    if TEST in given:
        left_out = left_out[splits[left_out] != TEST]
    used[left_out] = False
    leaks, removed, straddlers = clear_given(
        rows, copies, used, given, removing
    )
    hashes, together = rows.hashes, np.full(len(used), -1)
    train = splits == TRAIN
    free = used & train
    check_classes(rows.labels[free], rows.classes)
    if heeded and shares:
        # Of all that train has: a unit that lost a member, or had a label
        # corrected, stays where it was.
        hashes = np.full(len(used), np.nan)
        own = rows.hashes[train], rows.ranks[train], copies.clusters[train]
        hashes[train] = unite(*own)
        hashes[~used & ~rows.excluded] = np.nan
        together[free] = mark_sets(copies.clusters[free])
    splits, exceptions = assign_splits(
        hashes, rows.labels, splits, used, shares, rows.classes
    )
    if not heeded:
        leaks = copies.pair_across(splits, used)
    if duplicates == "fail" and (pairs := [*conflicts, *leaks]):
        refuse_copies(rows, pairs)
    return Selection(
        used,
        splits,
        conflicts,
        leaks,
        removed,
        left_out,
        straddlers,
        together,
        exceptions,
    )


def clear_given(
    rows: Rows,
    copies: Copies,
    used: np.ndarray,
    given: list[int],
    removing: bool,
) -> tuple[list[Pair], np.ndarray, np.ndarray]:
    """Marks images as unused that a later given split has, too.

    Args:
        rows: all that could be decoded.
        copies: which of them are copies.
        used: (n,) bool, which is changed.
        given: indices into `SPLITS`, ascending, train first.
        removing: whether copies are taken, as groups are.

    Returns:
        Pairs of copies in two of the splits; rows of copies that were taken;
        rows that were taken with their group.
    """
    leaks: list[Pair] = []
    removed: list[int] = []
    straddlers: list[int] = []
    for code in reversed(given[1:]):
        held = used & (rows.splits == code)
        earlier = used & (rows.splits < code)
        alike = rows.grouped & np.isin(rows.hashes, rows.hashes[held])
        mates = np.flatnonzero(earlier & alike)
        used[mates] = False
        straddlers += mates.tolist()
        found = copies.pair_across(
            held.astype(int), used & (rows.splits <= code)
        )
        taken = list_rows(found if removing else [])
        taken = taken[rows.splits[taken] < code]
        used[taken] = False
        leaks += found
        removed += taken.tolist()
    return leaks, np.array(removed, int), np.array(straddlers, int)


def sort_by_similarity(pair: Pair) -> tuple:
    return pair.similarity, pair.rows


def list_rows(pairs: Iterable[Pair]) -> np.ndarray:
    """Every row that is in a pair, (n,) int, ascending."""
    return np.unique(np.array([row for p in pairs for row in p.rows], int))


def mark_sets(clusters: np.ndarray) -> np.ndarray:
    """(n,) int: the cluster of what is not alone in it, -1 elsewhere."""
    _, places, sizes = np.unique(
        clusters, return_inverse=True, return_counts=True
    )
    return np.where(sizes[places] > 1, clusters, -1)


def refuse_copies(rows: Rows, pairs: list[Pair]) -> None:
    one, other = rows.pick_entries(pairs[0].rows)
    more = f", and {len(pairs) - 1} more such pairs" if len(pairs) > 1 else ""
    raise InputError(
        f"{one['path']} and {other['path']} are copies in two splits or under "
        f"two labels{more} (prepare.duplicates: fail)"
    )


def check_classes(labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raises InputError for classes without a label."""
    count = np.bincount(labels, minlength=len(classes))
    if not count.all():
        lacking = [
            classes[label] for label in np.flatnonzero(count == 0).tolist()
        ]
        raise InputError(
            f"classes with no image left in train: {list_some(lacking)}; what "
            "they have is copies of images in validation or test, of their "
            "groups, under two labels, corrected, or can't be read"
        )
