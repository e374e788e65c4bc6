"""Which image belongs to which split."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from thaw.errors import InputError

SPLITS = ("train", "validation", "test")


def hash_to_unit(identity: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but `identity` and `seed`."""
    digest = hashlib.sha256(f"{seed}:{identity}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def assign_splits(
    identities: Sequence[str],
    labels: Sequence[int],
    given: Sequence[str],
    shares: dict[str, float],
    seed: int,
    classes: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Cuts from the training images the splits that the source lacks.

    An image is held out where its hash lies under a threshold, so adding
    images moves none. A class that this leaves without an image in a split
    gives it its lowest hash, the only exception.

    Args:
        identities: one for each image, the same for the same bytes.
        labels: index into `classes`, for each image.
        given: the split that the source states, "train" where it has none.
        shares: split to share of the training images, for those to be cut.
        seed: another one cuts other splits.
        classes: names, for messages.

    Returns:
        The split of each image, and a sentence for every exception.

    Raises:
        InputError: where a class has too few images for all splits.
    """
    hashes = [hash_to_unit(identity, seed) for identity in identities]
    splits = list(given)
    for row, value in enumerate(hashes):
        if splits[row] != "train":
            continue
        threshold = 0.0
        for split, share in shares.items():
            threshold += share
            if value < threshold:
                splits[row] = split
                break
    # For each class its pictures, lowest hash first; equal ones stay together.
    members = defaultdict(lambda: defaultdict(list))
    for row in sorted(range(len(hashes)), key=lambda row: hashes[row]):
        if given[row] == "train":
            members[labels[row]][identities[row]].append(row)
    exceptions = []
    for label, name in enumerate(classes):
        pictures = list(members[label].values())
        if len(pictures) <= len(shares):
            raise InputError(
                f"class {name} has {len(pictures)} different image(s) to train "
                f"on; {len(shares) + 1} or more are needed, for train"
                + "".join(f", {split}" for split in shares)
            )
        for split in (*shares, "train"):
            count = Counter(splits[rows[0]] for rows in pictures)
            if count[split] == 0:
                # A tiny class may lie wholly under the thresholds.
                fullest = max(count, key=count.get)
                donor = "train" if count["train"] > 1 else fullest
                moved = next(x for x in pictures if splits[x[0]] == donor)
                for row in moved:
                    splits[row] = split
                exceptions.append(f"class {name}: one image moved to {split}")
    return splits, exceptions
