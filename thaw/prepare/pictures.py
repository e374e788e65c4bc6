"""What the pictures of a set are: their sizes, and those that stand out.

A description alone: nothing is left out or changed for it.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from thaw.data.dataset import Dataset
from thaw.data.splits import SPLITS
from thaw.files.tables import write_table
from thaw.prepare.sizes import count_share, describe_sizes, summarise
from thaw.run.console import say

COLUMNS = ["kind", "path", "class", "split", "row", "reason"]

# Levels of luma. By the eye they are right for photographs of traffic signs, of
# which a tenth is dark, and of clothing, of which none is dark, bright or flat.
DARK = 64  # the lightest of a dark picture is below
BRIGHT = 160  # the darkest of a bright picture is above
FLAT = 32  # the darkest and the lightest of a flat picture are closer

ODD = 2  # times the set's median ratio of longer to shorter side, or 1 / 2

MOST_LISTED = 1000  # of each kind
MOST_BLURRED = 24
SHARE_BLURRED = 0.01  # that the rank lists at most

# What the table says of a picture of each kind.
REASONS = {
    "dark": "99 % is no lighter than {lightest} of 255",
    "bright": "99 % is no darker than {darkest} of 255",
    "flat": "98 % lies between {darkest} and {lightest} of 255",
    "grey": "its channels are equal",
    "odd_shape": "{width} x {height} px",
    "blurred": "sharpness {sharpness:.2g}",
}


def describe_pictures(dataset: Dataset, own_size: int, fit: str) -> dict:
    """Writes pictures.csv: what stands out, of each kind the utmost first.

    Says how large the pictures are, and what stands out.

    Args:
        dataset: data/prepared, whole but for that table.
        own_size: pixels a side that the backbone is made for.
        fit: "squash" or "crop", as the pictures were resized.

    Returns:
        For the metrics: `sizes`, a sentence; least, median and most of some
        facts; count and share of the pictures of each kind.
    """
    facts = np.concatenate([dataset.open_facts(split) for split in SPLITS])
    kinds = find_kinds(facts, dataset.image_size)
    write_table(
        dataset.folder / "pictures.csv",
        COLUMNS,
        list_pictures(dataset, facts, kinds),
    )
    sizes, numbers = describe_sizes(facts, dataset.image_size, own_size, fit)
    say(f"pictures: {sizes}", *describe_kinds(kinds))
    counts = {kind: len(rows) for kind, rows in kinds.items()}
    counts["grey"] = facts["grey"].sum()
    del counts["blurred"]  # a rank: some are always the most blurred
    return {
        "sizes": sizes,
        **numbers,
        "brightness": summarise(facts["brightness"]),
        "contrast": summarise(measure_contrast(facts)),
        **{kind: count_share(n, len(facts)) for kind, n in counts.items()},
    }


def find_kinds(facts: np.ndarray, image_size: int) -> dict[str, np.ndarray]:
    """Numbers of the pictures of each kind, the utmost first.

    Args:
        facts: (n,) of `FACTS`.
        image_size: pixels a side of the prepared images.
    """
    darkest, lightest = facts["darkest"].astype(int), facts["lightest"]
    contrast = measure_contrast(facts)
    dark, bright = lightest < DARK, darkest > BRIGHT
    flat = (contrast < FLAT) & ~dark & ~bright
    grey = facts["grey"] & (2 * facts["grey"].sum() < len(facts))
    shorter = np.minimum(facts["width"], facts["height"])
    ratio = np.log(np.maximum(facts["width"], facts["height"]) / shorter)
    oddity = np.abs(ratio - np.median(ratio))
    # Those that are enlarged are blurred by that, the others show too little.
    clear = (shorter >= image_size) & ~(dark | bright | flat)
    most = min(MOST_BLURRED, int(SHARE_BLURRED * clear.sum()))
    return {
        "dark": sort_rows(lightest, dark),
        "bright": sort_rows(-darkest, bright),
        "flat": sort_rows(contrast, flat),
        "grey": np.flatnonzero(grey),
        "odd_shape": sort_rows(-oddity, oddity > np.log(ODD)),
        "blurred": sort_rows(facts["sharpness"], clear)[:most],
    }


def measure_contrast(facts: np.ndarray) -> np.ndarray:
    """Levels between the darkest and the lightest: (n,) int."""
    return facts["lightest"].astype(int) - facts["darkest"]


def sort_rows(keys: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Numbers of the members, (n,) bool, the least key first."""
    rows = np.flatnonzero(members)
    return rows[np.argsort(keys[rows], kind="stable")]


def list_pictures(
    dataset: Dataset, facts: np.ndarray, kinds: Mapping[str, np.ndarray]
) -> Iterator[list]:
    """Lines of the table.

    Args:
        dataset: whose splits the facts are of, one after the other.
        facts: (n,) of `FACTS`.
        kinds: numbers of the pictures of each kind.
    """
    shown = {kind: rows[:MOST_LISTED] for kind, rows in kinds.items()}
    wanted = set(np.concatenate([*shown.values()]).tolist())
    every = (
        [entry["path"], entry["class"], split, row]
        for split in SPLITS
        for row, entry in enumerate(dataset.read_index(split))
    )
    about = {number: x for number, x in enumerate(every) if number in wanted}
    for kind, rows in shown.items():
        for number in rows.tolist():
            reason = REASONS[kind].format_map(facts[number])
            yield [kind, *about[number], reason]


def describe_kinds(kinds: Mapping[str, np.ndarray]) -> Iterator[str]:
    """A sentence if there is any picture that stands out; a rank is none."""
    counts = [
        f"{len(rows):,} {kind.replace('_', ' ')}"
        for kind, rows in kinds.items()
        if len(rows) and kind != "blurred"
    ]
    if counts:
        found = ", ".join(counts)
        yield f"pictures: {found}; data/prepared/pictures.csv lists them"
