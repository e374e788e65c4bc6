"""From a source to its images, resized, and a table of them."""

import hashlib
import os
import re
import time
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from thaw.data.facts import FACTS, FLAWS, digest_pixels
from thaw.data.images import describe_failure, hash_pixels, resize_image
from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.arrays import ArrayWriter, open_array
from thaw.files.tables import TableWriter, read_table
from thaw.files.threads import map_ahead
from thaw.prepare.assign import hash_to_unit
from thaw.prepare.corrections import Corrections
from thaw.prepare.decoded import (
    FACTS_FILE,
    FINGERPRINTS,
    IMAGES,
    Decoded,
    DecodedBefore,
)
from thaw.prepare.items import Encoded, Item, Source
from thaw.prepare.near_duplicates import BLANK, FINGERPRINT, make_fingerprint
from thaw.prepare.statistics import measure_pixels
from thaw.run.console import progress, say
from thaw.stage.checkpoints import Checkpoint

# Seconds of decoding that are lost at most when a run is cut off.
SECONDS_BETWEEN_NOTES = 10

AHEAD = 64  # images that threads have at hand

TABLE = "decoded.csv"  # in the checkpoint, beside arrays of all images

RANK = -1  # a seed that prepare.seed can't be

COLUMNS = ["id", "path", "class", "group", "split", "reason"]


def decode(encoded: Encoded, image_size: int, fit: str) -> Decoded:
    image = encoded.decode()
    fingerprint = make_fingerprint(image)
    if np.array_equal(fingerprint, BLANK):
        picture = hash_pixels(image)
    else:
        picture = hashlib.sha256(fingerprint.tobytes()).hexdigest()[:16]
    resized = resize_image(image, image_size, fit)
    facts = np.zeros((), FACTS)
    facts["id"] = bytes.fromhex(encoded.identity)
    facts["picture"] = picture
    facts["digest"] = digest_pixels(resized)
    facts["flaw"] = FLAWS.index(image.info.get("flaw", ""))
    facts["width"], facts["height"] = image.size
    for name, value in measure_pixels(resized).items():
        facts[name] = value
    return Decoded(encoded.identity, resized, fingerprint, facts)


def decode_images(
    source: Source,
    before: DecodedBefore,
    checkpoint: Checkpoint,
    image_size: int,
    fit: str,
    group: str | None,
) -> None:
    """All images, resized, and a table of them, in the source's order.

    Decodes files whose content no earlier run has decoded.

    Resumes where the checkpoint's note says that an earlier run was cut off.
    Holds few images at a time.
    """

    def load(item: Item) -> tuple[Item, Decoded | Exception]:
        try:
            encoded = item.read()
            found = before.find(encoded.identity)
            return item, found or decode(encoded, image_size, fit)
        except Exception as error:  # Pillow's plugins raise anything
            return item, error

    folder = checkpoint.folder
    start = dict.fromkeys(("items", "images", "known", "bytes"), 0)
    start |= checkpoint.note
    done, kept, known = start["items"], start["images"], start["known"]
    if done:
        os.truncate(folder / TABLE, start["bytes"])
        check_unchanged(islice(source.items, done), folder / TABLE)
        say(
            f"resumes a run that was cut off: {done} images are decoded; "
            f"those of its last {SECONDS_BETWEEN_NOTES} s are decoded again"
        )
    shape = (image_size, image_size, 3)
    with (
        ArrayWriter(folder / IMAGES, shape, np.uint8, kept) as images,
        ArrayWriter(
            folder / FINGERPRINTS, FINGERPRINT, np.uint8, kept
        ) as fingerprints,
        ArrayWriter(folder / FACTS_FILE, (), FACTS, kept) as facts,
        (folder / TABLE).open(
            "a" if done else "w", encoding="utf-8", newline=""
        ) as file,
        progress(source.size, "decoding", "images", done) as bar,
    ):
        table = TableWriter(file)
        if not done:
            table.writerow(COLUMNS)
        noted = time.monotonic()
        for item, result in map_ahead(load, source.items, AHEAD):
            name = source.classes[item.label]
            about = [item.path, name, find_group(group, item), item.split]
            if isinstance(result, Exception):
                table.writerow(["", *about, describe_failure(result)])
            else:
                images.append(result.image[None])
                fingerprints.append(result.fingerprint[None])
                facts.append(result.facts[None])
                table.writerow([result.identity, *about, ""])
                known += result.known
            done += 1
            bar.update()
            if time.monotonic() - noted > SECONDS_BETWEEN_NOTES:
                for writer in (images, fingerprints, facts, file):
                    writer.flush()
                checkpoint.write(
                    items=done,
                    images=images.rows,
                    known=known,
                    bytes=os.fstat(file.fileno()).st_size,
                )
                noted = time.monotonic()
    if len(before):
        say(f"{done - known:,} of {done:,} images are new, and were decoded")


def check_unchanged(items: Iterable[Item], table: Path) -> None:
    """Raises InputError for a file that is not what a table says was read.

    Args:
        items: in the table's order.
        table: of what was decoded before.
    """

    def identify(item: Item) -> tuple[Item, str]:
        try:
            return item, item.read().identity
        except Exception:  # whatever `decode_images` noted
            return item, ""

    rows = zip(
        map_ahead(identify, items, AHEAD), read_table(table), strict=True
    )
    for (item, identity), entry in rows:
        same = identity == entry["id"] or not entry["id"]
        if item.path != entry["path"] or not same:
            raise InputError(
                f"{item.path} changed since the run that was cut off read it; "
                "`dvc repro` starts again"
            )


def find_group(group: str | None, item: Item) -> str:
    """What names an image's group: the source, or `prepare.group`.

    Of what that pattern finds in the path its first group, or all of it.
    """
    match = re.search(group, item.path) if group else None
    if not match:
        return item.group
    return (match[1] if match.re.groups else match[0]) or ""


class Rows:
    """What is held of the decoded images: few bytes each.

    Raises InputError where corrections are not about these images.

    Attributes:
        classes: their names.
        corrections: of labels, which are applied.
        labels: (n,) int32, indices into the classes.
        splits: (n,) int8, indices into `SPLITS`: what the source states.
        corrected: (n,) bool, whose label is another than the source's.
        excluded: (n,) bool, which are used in no split.
        hashes: (n,) float64, of the group, or else of the file.
        ranks: (n,) float64, of the same, whatever the seed.
        grouped: (n,) bool.
        bad: path, class, split and reason of what could not be decoded.
    """

    def __init__(
        self,
        folder: Path,
        classes: list[str],
        seed: int,
        corrections: Corrections,
    ):
        self.folder, self.classes = folder, classes
        self.corrections = corrections
        corrections.check(read_table(folder / TABLE), classes)
        label_of = {name: label for label, name in enumerate(classes)}
        labels, splits = array("i"), array("b")
        hashes, ranks = array("d"), array("d")
        grouped, lines = array("b"), []
        for entry in self.read_entries():
            unit = entry["group"] or entry["id"]
            labels.append(label_of[entry["class"]])
            splits.append(SPLITS.index(entry["split"]))
            hashes.append(hash_to_unit(unit, seed))
            ranks.append(hash_to_unit(unit, RANK))
            grouped.append(bool(entry["group"]))
            lines.append(corrections.by_path.get(entry["path"]))
        self.labels, self.splits = np.array(labels), np.array(splits)
        self.hashes, self.ranks = np.array(hashes), np.array(ranks)
        self.grouped = np.array(grouped, bool)
        self.corrected = np.array([x and x.relabels for x in lines], bool)
        self.excluded = np.array([x and x.excludes for x in lines], bool)
        self.bad = [
            tuple(entry[name] for name in ("path", "class", "split", "reason"))
            for entry in read_table(folder / TABLE)
            if entry["reason"]
        ]

    def read_entries(self) -> Iterator[dict[str, str]]:
        """The table's rows of images that could be decoded, corrected."""
        for entry in read_table(self.folder / TABLE):
            if not entry["reason"]:
                yield self.corrections.apply(entry)

    def pick_entries(self, rows: Iterable[int]) -> list[dict[str, str]]:
        """Those of some rows, in their order."""
        wanted = list(rows)
        among = set(wanted)
        entries = enumerate(self.read_entries())
        found = {row: entry for row, entry in entries if row in among}
        return [found[row] for row in wanted]

    def open_images(self) -> np.ndarray:
        """(n, image_size, image_size, 3) uint8, mapped."""
        return open_array(self.folder / IMAGES)

    def open_fingerprints(self) -> np.ndarray:
        """(n, *FINGERPRINT) uint8, mapped."""
        return open_array(self.folder / FINGERPRINTS)

    def open_facts(self) -> np.ndarray:
        """(n,) `FACTS`, mapped."""
        return open_array(self.folder / FACTS_FILE)

    def remove(self) -> None:
        """Removes what was only there to be split."""
        for name in (IMAGES, FINGERPRINTS, FACTS_FILE, TABLE):
            (self.folder / name).unlink()
