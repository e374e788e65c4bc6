"""From a source to data/prepared: decoded, resized, split, packed."""

from array import array
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np

from thaw.console import progress, say
from thaw.errors import InputError
from thaw.files import (
    ArrayWriter,
    new_table,
    open_array,
    read_table,
    write_json,
    write_table,
)
from thaw.images import resize_image
from thaw.sources import Item, Source
from thaw.splits import SPLITS, assign_splits, hash_to_unit
from thaw.threads import map_ahead

# More unreadable images than this share mean that the source is not what its
# owner thinks it is.
MOST_BAD = 0.1


# Gone when the splits are written.
UNSPLIT_IMAGES = "unsplit.npy"
UNSPLIT_INDEX = "unsplit.csv"
INDEX = ["id", "path", "class", "group"]


@dataclass
class Rows:
    """What is held of the images while they are decoded: few bytes each."""

    hashes: array = field(default_factory=lambda: array("d"))
    labels: array = field(default_factory=lambda: array("i"))
    splits: array = field(default_factory=lambda: array("b"))


def prepare_dataset(
    source: Source,
    folder: Path,
    image_size: int,
    fit: str,
    validation: float,
    test: float,
    seed: int,
    bad_images: str,
) -> None:
    """Decodes a source into `folder`, in one pass that holds few images.

    Writes classes.json, bad_images.csv and for each split images.npy
    (n, image_size, image_size, 3) uint8, labels.npy (n,) int32, index.csv.

    Says what was ignored, skipped or moved.

    Raises:
        InputError: where the images do not make a classification set.
    """
    if len(source.classes) < 2:
        found = ", ".join(source.classes) or "none"
        raise InputError(f"two classes or more are needed; found: {found}")
    rows, bad = decode_images(source, folder, image_size, fit, seed)
    say(*(f"ignored {name}" for name in source.ignored))
    say(*(f"can't read {path}: {reason}" for path, reason in bad))
    check_bad_images(bad, len(rows.labels), bad_images)
    labels = np.array(rows.labels, np.int32)
    shares = {"test": test, "validation": validation}
    splits, exceptions = assign_splits(
        np.array(rows.hashes),
        labels,
        np.array(rows.splits),
        {s: share for s, share in shares.items() if s not in source.splits},
        source.classes,
    )
    for code, split in enumerate(SPLITS):
        if not (splits == code).any():
            raise InputError(f"split {split} has no image that can be read")
        write_split(folder, split, splits == code, labels)
    for scratch in (UNSPLIT_IMAGES, UNSPLIT_INDEX):
        (folder / scratch).unlink()
    write_json(folder / "classes.json", source.classes)
    write_table(folder / "bad_images.csv", ["path", "reason"], bad)
    say(*exceptions)


def decode_images(
    source: Source, folder: Path, image_size: int, fit: str, seed: int
) -> tuple[Rows, list[tuple[str, str]]]:
    """All images, resized, and their index, in the source's order.

    Returns:
        The rows that could be read, and path and reason of the others.
    """

    def load(item: Item) -> tuple[Item, str, np.ndarray | Exception]:
        try:
            identity, image = item.load()
            return item, identity, resize_image(image, image_size, fit)
        except Exception as error:  # Pillow's plugins raise anything
            return item, "", error

    rows, bad = Rows(), []
    shape = (image_size, image_size, 3)
    with (
        ArrayWriter(folder / UNSPLIT_IMAGES, shape, np.uint8) as images,
        new_table(folder / UNSPLIT_INDEX, INDEX) as index,
        progress(source.size, "decoding", "images") as bar,
    ):
        for item, identity, result in map_ahead(load, source.items, ahead=64):
            if isinstance(result, Exception):
                # Pillow names the buffer at its address: no two runs alike.
                reason = str(result).split(" <_io.")[0] or repr(result)
                bad.append((item.path, reason))
            else:
                images.append(result[None])
                name = source.classes[item.label]
                index.writerow([identity, item.path, name, ""])
                rows.hashes.append(hash_to_unit(identity, seed))
                rows.labels.append(item.label)
                rows.splits.append(SPLITS.index(item.split))
            bar.update()
    return rows, bad


def check_bad_images(
    bad: list[tuple[str, str]], good: int, bad_images: str
) -> None:
    """Raises InputError for more bad images than `bad_images` allows."""
    total = len(bad) + good
    if not bad:
        return
    path, reason = bad[0]
    found = f"{len(bad)} of {total} images can't be read; {path}: {reason}"
    if good == 0:
        raise InputError(found)
    if bad_images == "fail":
        raise InputError(f"{found} (prepare.bad_images: fail)")
    if len(bad) > MOST_BAD * total:
        raise InputError(f"{found}; more than {MOST_BAD:.0%} is too many")


def write_split(
    folder: Path, split: str, members: np.ndarray, labels: np.ndarray
) -> None:
    """Copies the rows of one split, block by block.

    Args:
        folder: with the images and the index of all splits.
        split: also the name of its own folder in there.
        members: (n,) bool.
        labels: (n,) int32.
    """
    own = folder / split
    own.mkdir()
    images, rows = open_array(folder / UNSPLIT_IMAGES), np.flatnonzero(members)
    with ArrayWriter(own / "images.npy", images.shape[1:], np.uint8) as out:
        for start in range(0, len(rows), 64):
            out.append(images[rows[start : start + 64]])
    np.save(own / "labels.npy", labels[members])
    index = compress(read_table(folder / UNSPLIT_INDEX), members)
    write_table(own / "index.csv", INDEX, (row.values() for row in index))
