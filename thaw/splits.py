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
    shares: dict[str, float],
    classes: Sequence[str],
) -> tuple[np.ndarray, list[str]]:
    """Cuts from the training images the splits that the source lacks.

    An image is held out where its hash lies under a threshold, so adding
    images moves none. A class that this leaves without an image in a split
    gives it its lowest hash, the only exception.

    Args:
        hashes: (n,) from `hash_to_unit`, the same for the same bytes.
        labels: (n,) indices into `classes`.
        given: (n,) indices into `SPLITS`: what the source states, train where
            it has none.
        shares: split to share of the training images, for those to be cut.
        classes: names, for messages.

    Returns:
        (n,) indices into `SPLITS`, and a sentence for every exception.

    Raises:
        InputError: where a class has too few images for all splits.
    """
    free = given == TRAIN
    codes = np.array([*map(SPLITS.index, shares), TRAIN], given.dtype)
    bounds = np.cumsum(list(shares.values()))
    under = np.searchsorted(bounds, hashes, side="right")
    splits = np.where(free, codes[under], given)
    exceptions = []
    for label, name in enumerate(classes):
        rows = np.flatnonzero(free & (labels == label))
        # Its pictures, lowest hash first; copies of one stay together.
        pictures, first = np.unique(hashes[rows], return_index=True)
        if len(pictures) <= len(shares):
            raise InputError(
                f"class {name} has {len(pictures)} different image(s) to train "
                f"on; {len(shares) + 1} or more are needed, for train"
                + "".join(f", {split}" for split in shares)
            )
        for code in codes:
            where = splits[rows[first]]
            count = Counter(where.tolist())
            if count[code] == 0:
                # A tiny class may lie wholly under the thresholds.
                fullest = max(count, key=count.get)
                donor = TRAIN if count[TRAIN] > 1 else fullest
                moved = pictures[where == donor][0]
                splits[rows[hashes[rows] == moved]] = code
                exceptions.append(
                    f"class {name}: one image moved to {SPLITS[code]}"
                )
    return splits, exceptions
