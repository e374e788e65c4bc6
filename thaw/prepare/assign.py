"""Which image goes to which split."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.phrases import list_some

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
    """Cuts the splits that the source lacks from the training images.

    An image is held out where its hash lies under a threshold, so adding
    images moves none. A class that this leaves without an image in a split
    gives it its lowest hash, the only exception.

    Args:
        hashes: (n,) from `hash_to_unit`, the same for what must stay together:
            images of one group, copies.
        labels: (n,) indices into `classes`.
        given: (n,) indices into `SPLITS`: what the source states, train where
            it has none.
        used: (n,) bool; the others count for nothing.
        shares: split to share of the training images, for those to be cut.
        classes: names, for messages.

    Returns:
        (n,) indices into `SPLITS`, and a sentence for every exception.

    Raises:
        InputError: naming all classes with too few images for all splits.
    """
    free = used & (given == TRAIN)
    codes = np.array([*map(SPLITS.index, shares), TRAIN], given.dtype)
    bounds = np.cumsum(list(shares.values()))
    under = np.searchsorted(bounds, hashes, side="right")
    splits = np.where(given == TRAIN, codes[under], given)
    exceptions = []
    check_sizes(hashes, labels, free, shares, classes)
    for label, name in enumerate(classes):
        rows = np.flatnonzero(free & (labels == label))
        # Its units, lowest hash first.
        units, first = np.unique(hashes[rows], return_index=True)
        for code in codes:
            where = splits[rows[first]]
            count = Counter(where.tolist())
            if count[code] == 0:
                # A tiny class may lie wholly under the thresholds.
                fullest = max(count, key=count.__getitem__)
                donor = TRAIN if count[TRAIN] > 1 else fullest
                moved = units[where == donor][0]
                splits[free & (hashes == moved)] = code
                exceptions.append(
                    f"class {name}: one image or group moved to {SPLITS[code]}"
                )
    lacking = [
        f"{name} ({SPLITS[code]})"
        for label, name in enumerate(classes)
        for code in codes
        if code not in splits[free & (labels == label)]
    ]
    if lacking:
        raise InputError(
            f"classes with too few groups for a split: {list_some(lacking)}"
        )
    return splits, exceptions


def check_sizes(
    hashes: np.ndarray,
    labels: np.ndarray,
    free: np.ndarray,
    cut: Iterable[str],
    classes: Sequence[str],
) -> None:
    """Raises InputError for classes that can't be cut, all of them.

    Args:
        hashes: (n,), the same for what must stay together.
        labels: (n,) indices into `classes`.
        free: (n,) bool, the training images.
        cut: splits to be cut from them.
        classes: names.
    """
    images = np.bincount(labels[free], minlength=len(classes))
    pairs = np.unique(np.stack([labels[free], hashes[free]]), axis=1)
    units = np.bincount(pairs[0].astype(int), minlength=len(classes))
    problem = describe_shortage(dict(zip(classes, units, strict=True)), cut)
    if not problem:
        return
    if (images[units <= len([*cut])] > len([*cut])).any():
        problem += (
            "; equal and nearly equal images count as one: where they only "
            "look alike, prepare.duplicates: keep is right"
        )
    raise InputError(problem)


def describe_shortage(counts: dict[str, int], cut: Iterable[str]) -> str | None:
    """Names the classes too small for train and the splits to be cut from it.

    Args:
        counts: class to different images or groups to train on.
        cut: splits to be cut.
    """
    wanted = ["train", *cut]
    small = [
        f"{name} ({count})"
        for name, count in counts.items()
        if count < len(wanted)
    ]
    if not small:
        return None
    return (
        f"classes with too few different images or groups to train on: "
        f"{list_some(small)}; {len(wanted)} or more are needed, for "
        + ", ".join(wanted)
    )


def find_shortages(
    sizes: Mapping[tuple[str, str], int], brought: Collection[str]
) -> Iterator[str]:
    """Yields what a source's classes lack to be trained on and cut.

    Args:
        sizes: split and class to images; train where there are no splits.
        brought: splits that the source brings.
    """
    trained = {
        x: size for (split, x), size in sizes.items() if split == "train"
    }
    strange = sorted(f"{x} ({s})" for s, x in sizes if x not in trained)
    if strange:
        yield f"classes that train lacks: {list_some(strange)}"
    cut = [split for split in ("test", "validation") if split not in brought]
    if trained and (shortage := describe_shortage(trained, cut)):
        yield shortage


def unite(
    hashes: np.ndarray, ranks: np.ndarray, clusters: np.ndarray
) -> np.ndarray:
    """One hash for all that is connected by equal hashes or clusters.

    That of the member of lowest rank. The lowest hash would put large units
    into the held-out splits more often than their shares say.

    Args:
        hashes: (n,) from `hash_to_unit`, the same for images of one group.
        ranks: (n,) float, the same where the hashes are.
        clusters: (n,) int, the same for copies.

    Returns:
        (n,) hashes; those of what has neither group nor copy are as given.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, groups = np.unique(hashes, return_inverse=True)
    _, clusters = np.unique(clusters, return_inverse=True)
    clusters += groups.max(initial=-1) + 1
    count = clusters.max(initial=-1) + 1
    graph = coo_array((np.ones(len(hashes)), (groups, clusters)), (count,) * 2)
    _, units = connected_components(graph, directed=False)
    units = units[groups]
    order = np.lexsort((ranks, units))
    first = np.diff(units[order], prepend=-1) != 0
    chosen = np.empty(count, int)
    chosen[units[order[first]]] = order[first]
    return hashes[chosen[units]]
