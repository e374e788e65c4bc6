"""Names of classes: which look alike, and which are of masks."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

# Words for pictures of labels, in names of files and folders.
MASKS = {
    "annotation", "annotations", "gt", "label", "labels", "mask", "masks",
    "seg", "segmentation", "segmentations",
}  # fmt: skip


def simplify(name: str) -> str:
    """A name as a reader sees it: one Unicode form, no invisible characters."""
    composed = unicodedata.normalize("NFC", name)
    shown = (
        " " if unicodedata.category(char).startswith("Z") else char
        for char in composed
        if unicodedata.category(char) != "Cf"
    )
    return " ".join("".join(shown).split())


def group_alike(names: Iterable[str], case: bool) -> Iterator[list[str]]:
    """Yields names that differ in nothing that a reader sees.

    Args:
        names: of classes.
        case: whether upper and lower case differ.
    """
    alike = defaultdict(list)
    for name in sorted(set(names)):
        shown = simplify(name)
        alike[shown if case else shown.casefold()].append(name)
    yield from (group for group in alike.values() if len(group) > 1)


def find_lookalikes(names: Iterable[str]) -> Iterator[str]:
    """Yields what is wrong with names that look the same, or like nothing."""
    names = set(names)
    for group in group_alike(names, case=True):
        spelt = ", ".join(map(ascii, group))
        yield (
            f"classes that look the same: {spelt} (another Unicode form, or "
            "spaces and invisible characters: give them one name)"
        )
    if blank := sorted(name for name in names if not simplify(name)):
        yield f"classes without a name: {', '.join(map(ascii, blank))}"


def warn_of_case(names: Iterable[str]) -> Iterator[str]:
    """Yields warnings of names that differ in case alone."""
    for group in group_alike(names, case=False):
        yield f"warning: classes that differ in case: {', '.join(group)}"


def is_mask(name: str) -> bool:
    """Whether a word of a name says that it is of masks."""
    words = "".join(x if x.isalnum() else " " for x in name.lower()).split()
    return not MASKS.isdisjoint(words)


def strip_mask(stem: str) -> str:
    """A file's name without suffix, and without a last word for masks."""
    for mark in "_-. ":
        rest, found, word = stem.rpartition(mark)
        if found and word.lower() in MASKS:
            return rest
    return stem
