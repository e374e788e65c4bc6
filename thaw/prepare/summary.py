"""What became of images, counted for the metrics and told."""

from collections.abc import Iterator

import numpy as np

from thaw.data.splits import SPLITS
from thaw.files.phrases import format_count, list_some
from thaw.prepare.assign import TRAIN
from thaw.prepare.decode import Rows
from thaw.prepare.select import Selection

# Above this share the images are likely one scene that hardly changes.
MANY_COPIES = 0.05


def count_unused(rows: Rows, selection: Selection) -> dict[str, int]:
    """How many images were not used, and why, for the metrics."""
    removed = selection.splits[selection.removed]
    return {
        "bad_images": len(rows.bad),
        "duplicates_across_splits": len(selection.leaks),
        "duplicates_across_classes": len(selection.conflicts),
        "removed_from_train": int((removed == TRAIN).sum()),
        "removed_from_validation": int((removed != TRAIN).sum()),
        "left_out": len(selection.left_out) + len(selection.straddlers),
    }


def count_corrections(
    rows: Rows, selection: Selection
) -> dict[str, dict[str, int]]:
    """Corrected labels and excluded images, for the metrics.

    By the split that an image is in, or would be in were it not excluded.
    """

    def count(members: np.ndarray) -> dict[str, int]:
        numbers = np.bincount(selection.splits[members], minlength=len(SPLITS))
        return dict(zip(SPLITS, numbers.tolist(), strict=True))

    used = rows.corrected & selection.used
    unused = int(rows.corrected.sum() - used.sum())
    return {
        "corrected": count(used) | {"unused": unused},
        "excluded": count(rows.excluded),
    }


def describe_corrections(rows: Rows, selection: Selection) -> Iterator[str]:
    counts = count_corrections(rows, selection)
    corrected, excluded = (sum(each.values()) for each in counts.values())
    tested = sum(each["test"] for each in counts.values())
    parts = [
        format_count(corrected, "label") + " corrected" if corrected else "",
        format_count(excluded, "image") + " excluded" if excluded else "",
    ]
    where = f"; {tested} of them in test" if tested else ""
    if corrected or excluded:
        text = ", ".join(filter(None, parts))
        yield f"{rows.corrections.name}: {text}{where}"


def describe_selection(selection: Selection) -> Iterator[str]:
    yield from selection.exceptions
    total = len(selection.used)
    if selection.leaks:
        removed = selection.splits[selection.removed]
        losses = [
            f"{format_count(int(count), 'image')} removed from {split}"
            for code, split in enumerate(SPLITS)
            if (count := (removed == code).sum())
        ]
        pairs = format_count(len(selection.leaks), "pair")
        lost = ", ".join(losses) or "all kept"
        yield f"copies in two splits: {pairs}, {lost}"
    if selection.conflicts:
        pairs = format_count(len(selection.conflicts), "pair")
        images = format_count(len(selection.left_out), "image")
        kept = sum(
            selection.decide(pair) == "kept" for pair in selection.conflicts
        )
        rest = f", {format_count(kept, 'pair')} kept" if kept else ""
        yield f"copies under two labels: {pairs}, {images} left out{rest}"
    if selection.pairs:
        yield "data/prepared/duplicates.csv lists these pairs"
    together = selection.together[selection.together >= 0]
    sets, sizes = np.unique(together, return_counts=True)
    if len(sets):
        yield (
            f"copies kept together: {format_count(len(together), 'image')} in "
            f"{format_count(len(sets), 'set')}, each cut as one"
        )
    gone = len(selection.removed) + len(selection.left_out)
    if max(gone, sizes.max(initial=0)) > MANY_COPIES * total:
        yield (
            f"warning: {gone:,} of {total:,} images are gone as copies, and "
            f"up to {sizes.max(initial=0):,} are cut as one; if they only look "
            "alike, as where one camera sees one scene, prepare.duplicates: "
            "keep is right"
        )
    if len(selection.straddlers):
        left = format_count(len(selection.straddlers), "image")
        yield (
            f"{left} left out, the group lying in another split; see "
            "data/prepared/quarantine.csv"
        )


def find_gaps(rows: Rows, selection: Selection) -> Iterator[str]:
    """Yields warnings of classes that validation or test has no image of."""
    for code, split in enumerate(SPLITS):
        there = rows.labels[selection.used & (selection.splits == code)]
        count = np.bincount(there, minlength=len(rows.classes))
        lacking = [rows.classes[label] for label in np.flatnonzero(count == 0)]
        if lacking:
            yield (
                f"warning: {len(lacking)} of {len(rows.classes)} classes have "
                f"no image in {split}: {list_some(lacking, 5)}"
            )
