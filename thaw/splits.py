"""Which image belongs to which split."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from thaw.errors import InputError

SPLITS = ("train", "validation", "test")
TRAIN = SPLITS.index("train")


def hash_to_unit(identity: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but `identity` and `seed`."""
    digest = hashlib.sha256(f"{seed}:{identity}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def assign_splits(
    hashes: np.ndarray,
    labels: np.ndarray,
    given: np.ndarray,
    used: np.ndarray,
    shares: dict[str, float],
    classes: Sequence[str],
) -> tuple[np.ndarray, list[str]]:
    """Cuts from the training images the splits that the source lacks.

    An image is held out where its hash lies under a threshold, so adding
    images moves none. A class that this leaves without an image in a split
    gives it its lowest hash, the only exception.

    Args:
        hashes: (n,) from `hash_to_unit`, the same for what must stay together:
            equal files, or images of one group.
        labels: (n,) indices into `classes`.
        given: (n,) indices into `SPLITS`: what the source states, train where
            it has none.
        used: (n,) bool; the others count for nothing.
        shares: split to share of the training images, for those to be cut.
        classes: names, for messages.

    Returns:
        (n,) indices into `SPLITS`, and a sentence for every exception.

    Raises:
        InputError: where a class has too few images for all splits.
    """
    free = used & (given == TRAIN)
    codes = np.array([*map(SPLITS.index, shares), TRAIN], given.dtype)
    bounds = np.cumsum(list(shares.values()))
    under = np.searchsorted(bounds, hashes, side="right")
    splits = np.where(given == TRAIN, codes[under], given)
    exceptions = []
    for label, name in enumerate(classes):
        rows = np.flatnonzero(free & (labels == label))
        # Its pictures or groups, lowest hash first.
        units, first = np.unique(hashes[rows], return_index=True)
        if len(units) <= len(shares):
            raise InputError(
                f"class {name} has {len(units)} different image(s) or groups "
                f"to train on; {len(shares) + 1} or more are needed, for train"
                + "".join(f", {split}" for split in shares)
            )
        for code in codes:
            where = splits[rows[first]]
            count = Counter(where.tolist())
            if count[code] == 0:
                # A tiny class may lie wholly under the thresholds.
                fullest = max(count, key=count.get)
                donor = TRAIN if count[TRAIN] > 1 else fullest
                moved = units[where == donor][0]
                splits[free & (hashes == moved)] = code
                exceptions.append(
                    f"class {name}: one image or group moved to {SPLITS[code]}"
                )
    for label, name in enumerate(classes):
        there = splits[free & (labels == label)]
        for code in codes:
            if code not in there:
                raise InputError(
                    f"class {name} has too few groups for split {SPLITS[code]}"
                )
    return splits, exceptions


def find_straddlers(
    hashes: np.ndarray, splits: np.ndarray, used: np.ndarray
) -> np.ndarray:
    """Rows of what lies in several of the splits that a source brings.

    It belongs to the last of these splits: test, or else validation.

    Args:
        hashes: (n,), the same for what must stay together.
        splits: (n,) indices into `SPLITS`.
        used: (n,) bool; the others count for nothing.

    Returns:
        Row numbers outside that last split.
    """
    rows = np.flatnonzero(used)
    _, units = np.unique(hashes[rows], return_inverse=True)
    last = np.zeros(len(rows), splits.dtype)
    np.maximum.at(last, units, splits[rows])
    return rows[splits[rows] < last[units]]
