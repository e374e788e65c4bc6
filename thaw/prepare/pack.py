"""From a source to data/prepared: decoded, resized, split, packed."""

import shutil
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from thaw.data.facts import FLAWS
from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.arrays import ArrayWriter
from thaw.files.phrases import format_count, list_some
from thaw.files.tables import write_table
from thaw.files.text import write_json
from thaw.prepare.copies import find_copies
from thaw.prepare.corrections import Corrections
from thaw.prepare.decode import Rows, decode_images
from thaw.prepare.decoded import (
    FACTS_FILE,
    FINGERPRINTS,
    IMAGES,
    DecodedBefore,
)
from thaw.prepare.items import Source
from thaw.prepare.select import Selection, select_images
from thaw.prepare.summary import (
    count_corrections,
    count_unused,
    describe_corrections,
    describe_selection,
    find_gaps,
)
from thaw.run.console import say
from thaw.stage.checkpoints import Checkpoint

# Above this share of unreadable images the source is not what its owner thinks.
MOST_BAD = 0.1

PREPARED = "prepared"
UNUSED = "unused"  # images that are in no split

MOST_SHOWN = 24  # pairs of copies
MOST_NAMED = 5  # pictures with a flaw, on one line
MOST_LISTED = 100  # of them, in the metrics

INDEX = ["id", "path", "class", "group", "copies"]
QUARANTINE = ["path", "class", "split", "reason"]
DUPLICATES = ["path", "split", "class", "other_path", "other_split"]
DUPLICATES += ["other_class", "similarity", "decision"]


def prepare_dataset(
    source: Source,
    before: DecodedBefore,
    corrections: Corrections,
    checkpoint: Checkpoint,
    image_size: int,
    fit: str,
    validation: float,
    test: float,
    seed: int,
    bad_images: str,
    group: str | None,
    duplicates: str,
) -> dict[str, Any]:
    """Decodes a source, but for what is known, in one pass that holds little.

    Writes into the folder `PREPARED` of the checkpoint: classes.json,
    quarantine.csv (what is not used, and why), duplicates.csv (copies in two
    splits or under two labels), duplicates.npy (the first of them, (pairs, 2,
    image_size, image_size, 3)), and for each split, and for what is in none,
    images.npy (n, image_size, image_size, 3) uint8, labels.npy (n,) int32,
    facts.npy (n,), fingerprints.npy, index.csv.

    Says what was ignored, quarantined, left out or moved.

    Returns:
        Counts of all that, for the metrics.

    Raises:
        InputError: where the images do not make a classification set.
        OSError: where the disk has not the room.
    """
    if "counts" in checkpoint.note:
        return checkpoint.note["counts"]
    if len(source.classes) < 2:
        found = ", ".join(source.classes) or "none"
        raise InputError(f"two classes or more are needed; found: {found}")
    if group and source.grouped:
        raise InputError(
            f"prepare.group is {group}; allowed: null where the source names "
            "the groups, as a table with a column group does"
        )
    say(*source.notes)
    # Once as decoded, once split, once in DVC's cache.
    size = source.size * 3 * image_size**2
    checkpoint.check_room(3 * size, "a smaller prepare.image_size needs less")
    decode_images(source, before, checkpoint, image_size, fit, group)
    rows = Rows(checkpoint.folder, source.classes, seed, corrections)
    say(*(f"can't read {path}: {reason}" for path, *_, reason in rows.bad))
    check_bad_images(rows.bad, len(rows.labels), bad_images)
    flawed = find_flawed(rows)
    for flaw, paths in flawed.items():
        say(f"read, though {flaw}: {list_some(paths, MOST_NAMED)}")
    if group or source.grouped:
        say(describe_groups(rows, group))

    shares = {"test": test, "validation": validation}
    pictures = np.array(rows.open_facts()["picture"])
    copies = find_copies(pictures, rows.open_fingerprints())
    selection = select_images(
        rows,
        copies,
        {s: share for s, share in shares.items() if s not in source.splits},
        duplicates,
    )
    sets = copies.name_sets(pictures)
    pack_images(checkpoint.folder / PREPARED, rows, selection, sets)
    say(
        *describe_corrections(rows, selection),
        *describe_selection(selection),
        *find_gaps(rows, selection),
    )
    listed = {flaw: paths[:MOST_LISTED] for flaw, paths in flawed.items()}
    counts: dict[str, Any] = {"flawed": listed}
    counts |= count_unused(rows, selection)
    counts |= count_corrections(rows, selection)
    rows.remove()
    checkpoint.write(counts=counts)
    return counts


def pack_images(
    folder: Path, rows: Rows, selection: Selection, sets: np.ndarray
) -> None:
    """Writes all that `prepare_dataset` names, anew.

    Args:
        folder: for it.
        rows: of all images.
        selection: which of them are in which split.
        sets: (n,) bytes, the same for copies of each other.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_duplicates(folder, rows, selection)
    write_table(
        folder / "quarantine.csv",
        QUARANTINE,
        rows.bad + describe_straddlers(rows, selection) + list_excluded(rows),
    )
    for code, split in enumerate(SPLITS):
        members = selection.used & (selection.splits == code)
        write_split(folder, rows, split, members, sets)
    if not selection.used.all():
        write_rows(folder / UNUSED, rows, ~selection.used, sets)
    write_json(folder / "classes.json", rows.classes)


def describe_groups(rows: Rows, group: str | None) -> str:
    """Raises InputError where the pattern fits no path."""
    count = int(rows.grouped.sum())
    if not count and group:
        entry = next(rows.read_entries())
        raise InputError(
            f"prepare.group is {group}: it is found in no path, such as "
            f"{entry['path']}"
        )
    groups = len(np.unique(rows.hashes[rows.grouped]))
    return (
        f"{count} of {len(rows.hashes)} images are in "
        f"{format_count(groups, 'group')}"
    )


def check_bad_images(bad: list[tuple], good: int, bad_images: str) -> None:
    """Raises InputError for more bad images than `bad_images` allows."""
    total = len(bad) + good
    if not bad:
        return
    path, *_, reason = bad[0]
    found = f"{len(bad)} of {total} images can't be read; {path}: {reason}"
    if good == 0:
        raise InputError(found)
    if bad_images == "fail":
        raise InputError(f"{found} (prepare.bad_images: fail)")
    if len(bad) > MOST_BAD * total:
        raise InputError(f"{found}; more than {MOST_BAD:.0%} is too many")


def find_flawed(rows: Rows) -> dict[str, list[str]]:
    """Finds the paths of images that are read in spite of a flaw, by flaw."""
    flaws = rows.open_facts()["flaw"]
    flawed = np.flatnonzero(flaws)
    found: dict[str, list[str]] = {}
    entries = rows.pick_entries(flawed.tolist())
    for entry, code in zip(entries, flaws[flawed], strict=True):
        found.setdefault(FLAWS[code], []).append(entry["path"])
    return found


def write_duplicates(folder: Path, rows: Rows, selection: Selection) -> None:
    """A table of all pairs of copies, and the images of the first of them."""
    pairs = selection.pairs
    ordered = [selection.order(pair) for pair in pairs]
    entries = iter(rows.pick_entries(row for two in ordered for row in two))
    lines = []
    for pair, two in zip(pairs, ordered, strict=True):
        line = []
        for row in two:
            entry = next(entries)
            split = SPLITS[selection.splits[row]]
            line += [entry["path"], split, entry["class"]]
        decision = selection.decide(pair)
        lines.append([*line, f"{pair.similarity:.3f}", decision])
    write_table(folder / "duplicates.csv", DUPLICATES, lines)
    shown = np.array(ordered[:MOST_SHOWN], int).reshape(-1, 2)
    np.save(folder / "duplicates.npy", rows.open_images()[shown])


def describe_straddlers(rows: Rows, selection: Selection) -> list[tuple]:
    """As in the table of what could not be decoded."""
    entries = rows.pick_entries(selection.straddlers.tolist())
    return [
        (
            entry["path"],
            entry["class"],
            entry["split"],
            f"its group, {entry['group']}, lies in another split too",
        )
        for entry in entries
    ]


def list_excluded(rows: Rows) -> list[tuple]:
    """As in the table of what could not be decoded."""
    entries = rows.pick_entries(np.flatnonzero(rows.excluded).tolist())
    by_path = rows.corrections.by_path
    return [
        (
            entry["path"],
            entry["class"],
            entry["split"],
            by_path[entry["path"]].reason,
        )
        for entry in entries
    ]


def write_split(
    folder: Path, rows: Rows, split: str, members: np.ndarray, sets: np.ndarray
) -> None:
    """Writes the rows of one split.

    Args:
        folder: of all splits.
        rows: of all images.
        split: the name of its own folder in there.
        members: (n,) bool.
        sets: (n,) bytes, the same for copies of each other.

    Raises:
        InputError: where there are none, or their range is not [0, 255].
    """
    if not members.any():
        raise InputError(f"split {split} has no image that can be read")
    highest = write_rows(folder / split, rows, members, sets)
    if highest <= 1:
        raise InputError(
            f"no pixel in split {split} is over {highest}: the images seem to "
            "be scaled to [0, 1]; [0, 255] is expected"
        )


def write_rows(
    folder: Path, rows: Rows, members: np.ndarray, sets: np.ndarray
) -> int:
    """Copies some rows, block by block.

    Args:
        folder: for them.
        rows: of all images.
        members: (n,) bool.
        sets: (n,) bytes, the same for copies of each other.

    Returns:
        The highest value of a pixel.
    """
    folder.mkdir()
    numbers, highest = np.flatnonzero(members), 0
    images, fingerprints = rows.open_images(), rows.open_fingerprints()
    with (
        ArrayWriter(folder / IMAGES, images.shape[1:], np.uint8) as pixels,
        ArrayWriter(
            folder / FINGERPRINTS, fingerprints.shape[1:], np.uint8
        ) as thumbnails,
    ):
        for start in range(0, len(numbers), 64):
            some = numbers[start : start + 64]
            block = images[some]
            highest = max(highest, int(block.max()))
            pixels.append(block)
            thumbnails.append(fingerprints[some])
    np.save(folder / FACTS_FILE, rows.open_facts()[members])
    np.save(folder / "labels.npy", rows.labels[members])
    index = compress(rows.read_entries(), members)
    lines = (
        [*(entry[name] for name in INDEX[:-1]), name.decode()]
        for entry, name in zip(index, sets[members], strict=True)
    )
    write_table(folder / "index.csv", INDEX, lines)
    return highest
