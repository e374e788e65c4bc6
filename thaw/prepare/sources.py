"""Where images come from: digits, folders, tables, TensorFlow Datasets.

A source names its classes and yields items; an item is read later, on a
thread, so that a bad file costs one item and a large set no memory.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.prepare.corrections import EXCLUDE
from thaw.prepare.digits import open_digits
from thaw.prepare.folders import list_images, scan_folder
from thaw.prepare.items import Item, Source, read_file
from thaw.prepare.table import open_table
from thaw.prepare.tfds import open_tfds

# Parameters of `prepare` that `open_source` takes.
OPENING = {"source", "path", "classes", "files", "name", "data_dir"}


def open_source(
    source: str,
    path: str | Path,
    classes: str = "first",
    files: str | None = None,
    name: str | None = None,
    data_dir: str | None = None,
) -> Source:
    """Opens the source that the section `prepare` names.

    Raises:
        InputError: where it is missing, or holds no classification set.
    """
    if source == "digits":
        opened = open_digits()
    elif source == "folder":
        opened = open_folder(path, classes, files)
    elif source == "table":
        opened = open_table(path, name)
    else:
        opened = open_tfds(name or "", data_dir, str(path))
    if EXCLUDE in opened.classes:
        raise InputError(
            f"a class is called {EXCLUDE}, as corrections.csv calls what is to "
            "be left out: give the class another name, or move its images away"
        )
    return opened


def open_folder(
    path: str | Path, classes: str = "first", files: str | None = None
) -> Source:
    """Class folders, or train, validation and test folders of such folders.

    Args:
        path: the folder.
        classes, files: as in `scan_folder`.

    Raises:
        InputError: naming all that keeps it from being a set.
    """
    scan = scan_folder(path, classes, files)
    names = sorted({home.name for home in scan.homes})
    splits = [split for split in SPLITS if split in scan.tops]
    sizes: Counter[str] = Counter()
    for home in scan.homes:
        sizes[home.split] += home.images

    def list_items() -> Iterator[Item]:
        for home in scan.homes:
            label = names.index(home.name)
            for file in map(Path, list_images(home.path, takes=scan.takes)):
                inner = file.relative_to(path).as_posix()
                yield Item(inner, label, home.split, partial(read_file, file))

    return Source(names, splits, sizes, list_items(), scan.notes)
