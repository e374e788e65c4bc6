"""From a source to data/prepared: decoded, resized, split, packed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.console import progress, say
from thaw.errors import InputError
from thaw.files import ArrayWriter, open_array, write_json, write_table
from thaw.images import resize_image
from thaw.sources import Item, Source
from thaw.splits import SPLITS, assign_splits
from thaw.threads import map_ahead

# More unreadable images than this share mean that the source is not what its
# owner thinks it is.
MOST_BAD = 0.1


@dataclass(frozen=True)
class Row:
    """One decoded image: its line in index.csv, and where it was given."""

    identity: str
    path: str
    label: int
    split: str


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
    scratch = folder / "unsplit.npy"
    rows, bad = decode_images(source, scratch, image_size, fit)
    say(*(f"ignored {name}" for name in source.ignored))
    say(*(f"can't read {path}: {reason}" for path, reason in bad))
    check_bad_images(bad, len(rows), bad_images)
    shares = {"test": test, "validation": validation}
    splits, exceptions = assign_splits(
        [row.identity for row in rows],
        [row.label for row in rows],
        [row.split for row in rows],
        {s: share for s, share in shares.items() if s not in source.splits},
        seed,
        source.classes,
    )
    images = open_array(scratch)
    for split in SPLITS:
        members = [row for row, own in enumerate(splits) if own == split]
        if not members:
            raise InputError(f"split {split} has no image that can be read")
        write_split(folder / split, images, rows, members, source.classes)
    scratch.unlink()
    write_json(folder / "classes.json", source.classes)
    write_table(folder / "bad_images.csv", ["path", "reason"], bad)
    say(*exceptions)


def decode_images(
    source: Source, path: Path, image_size: int, fit: str
) -> tuple[list[Row], list[tuple[str, str]]]:
    """All images, resized, into one array in the source's order.

    Returns:
        The rows that could be read, and path and reason of the others.
    """

    def load(item: Item) -> tuple[Item, str, np.ndarray | Exception]:
        try:
            identity, image = item.load()
            return item, identity, resize_image(image, image_size, fit)
        except Exception as error:  # Pillow's plugins raise anything
            return item, "", error

    rows, bad = [], []
    with (
        ArrayWriter(path, (image_size, image_size, 3), np.uint8) as images,
        progress(source.size, "decoding", "images") as bar,
    ):
        for item, identity, result in map_ahead(load, source.items, ahead=64):
            if isinstance(result, Exception):
                # Pillow names the buffer at its address: no two runs alike.
                reason = str(result).split(" <_io.")[0] or repr(result)
                bad.append((item.path, reason))
            else:
                images.append(result[None])
                rows.append(Row(identity, item.path, item.label, item.split))
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
    folder: Path,
    images: np.ndarray,
    rows: list[Row],
    members: list[int],
    classes: list[str],
) -> None:
    """Copies the rows of one split, block by block."""
    folder.mkdir()
    with ArrayWriter(folder / "images.npy", images.shape[1:], np.uint8) as out:
        for start in range(0, len(members), 256):
            out.append(images[members[start : start + 256]])
    labels = np.array([rows[row].label for row in members], np.int32)
    np.save(folder / "labels.npy", labels)
    write_table(
        folder / "index.csv",
        ["id", "path", "class", "group"],
        (
            (rows[row].identity, rows[row].path, classes[rows[row].label], "")
            for row in members
        ),
    )
