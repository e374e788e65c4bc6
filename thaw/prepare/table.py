"""A table that names photographs, as a source."""

import os
import posixpath
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from thaw.data.splits import SPLIT_NAMES, SPLITS
from thaw.errors import InputError
from thaw.files.phrases import format_count, list_some
from thaw.prepare.assign import find_shortages
from thaw.prepare.dvcignore import open_dvcignore
from thaw.prepare.folders import is_hidden, walk_folder
from thaw.prepare.items import Item, Source, read_file
from thaw.prepare.names import find_lookalikes, warn_of_case
from thaw.prepare.sheets import SUFFIXES, Line, read_sheet

NEEDED = ("path", "label")

MISSING = "files that are not there"


class Row(NamedTuple):
    """What a table says of a photograph; "" where it says nothing."""

    label: str
    split: str
    group: str


@dataclass
class Table:
    """What was read.

    Attributes:
        folder: that DVC watches.
        name: of the table in it.
        rows: path in the folder to what the table says of it.
        faults: what is wrong to where, in order.
        repeated: lines that say what an earlier one says.
    """

    folder: str
    name: str
    rows: dict[str, Row] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    repeated: list[str] = field(default_factory=list)

    @property
    def splits(self) -> list[str]:
        named = {row.split for row in self.rows.values()}
        return [split for split in SPLITS if split in named]

    def count_sizes(self) -> Counter[tuple[str, str]]:
        """Split and class to images; train where there are no splits."""
        return Counter(
            (row.split or "train", row.label)
            for row in self.rows.values()
            if row.split in ("", *SPLITS)
        )


def open_table(path: str | Path, name: str | None = None) -> Source:
    """The photographs that a CSV or TSV names, and what it says of them.

    Its columns are path, from the table's folder, and label, and split and
    group where it has them.

    Args:
        path: the folder of the photographs and the table.
        name: of the table in it; None: the only one that lies directly in it.

    Raises:
        InputError: naming all that keeps it from being a set.
    """
    folder = str(Path(path))
    table = Table(folder, find_table(folder, name))
    for line in read_sheet(f"{folder}/{table.name}", NEEDED):
        add_line(table, line)
    check_files(table)
    sizes = table.count_sizes()
    problems = [*find_faults(table), *find_shortages(sizes, table.splits)]
    if problems:
        raise InputError(f"{folder}/{table.name}: {'; '.join(problems)}")
    images: Counter[str] = Counter()
    for (split, _), count in sizes.items():
        images[split] += count
    classes = sorted({label for _, label in sizes})
    return Source(
        classes,
        table.splits,
        images,
        list_items(table, classes),
        [*find_notes(table), *warn_of_case(classes)],
        grouped=any(row.group for row in table.rows.values()),
    )


def find_table(folder: str, name: str | None) -> str:
    """The table's path in its folder.

    Raises:
        InputError: where it is not there, or none is named and not one lies
            there.
    """
    if not Path(folder).is_dir():
        raise InputError(f"prepare.path is {folder}; allowed: a folder")
    found = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.name.lower().endswith(SUFFIXES)
        and not is_hidden(entry.name)
        and entry.is_file()
    )
    if name is None and len(found) == 1:
        return found[0]
    inner = locate("", name or "")
    if name and inner and is_file(f"{folder}/{inner}"):
        return inner
    raise InputError(
        f"prepare.name is {name or 'null'}; allowed: with source table, the "
        f"name of a .csv or .tsv in {folder}, or null where one lies directly "
        f"in it; there: {list_some(found) or 'none'}"
    )


def locate(table: str, path: str) -> str | None:
    """A path in the watched folder, of one that a table in it names.

    None where it leaves the folder.
    """
    inner = posixpath.normpath(posixpath.join(posixpath.dirname(table), path))
    leaves = inner == ".." or inner.startswith(("/", "../"))
    return None if leaves else inner


def is_file(path: str) -> bool:
    """False, too, for what is no name that a file can have."""
    return os.path.isfile(path)  # noqa: PTH113 (there may be a million)


def add_line(table: Table, line: Line) -> None:
    """Adds a photograph, or what is wrong with its line."""
    faults, where = table.faults, f"line {line.number}"
    label, split, group = (
        line.cells.get(name, "").strip() for name in Row._fields
    )
    path = line.cells["path"]
    if line.excess:
        faults["lines with more cells than there are columns"].append(where)
    if not path.strip():
        faults["lines without a path"].append(where)
    if not label:
        faults["lines without a label"].append(where)
    if not path.strip() or not label:
        return
    inner = locate(table.name, path)
    if inner is None:
        faults["paths that leave the folder"].append(path)
        return
    split = SPLIT_NAMES.get(split.lower(), split)
    row = Row(*map(sys.intern, (label, split, group)))
    known = table.rows.setdefault(inner, row)
    if known is not row and known == row:
        table.repeated.append(where)
    for name, one, other in zip(Row._fields, known, row, strict=True):
        if one != other:
            both = f"{inner} ({one or 'none'}, {other or 'none'})"
            faults[f"paths with two {name}s"].append(both)


def check_files(table: Table) -> None:
    """Adds what is wrong with the files that would be read."""
    top, paths = os.path.realpath(table.folder), [table.name, *table.rows]
    linked = {
        folder
        for folder in set(map(posixpath.dirname, paths))
        if os.path.realpath(f"{top}/{folder}")
        != os.path.normpath(f"{top}/{folder}")
    }
    ignores = open_dvcignore(table.folder)
    for path in paths:
        file = f"{table.folder}/{path}"
        if posixpath.dirname(path) in linked:
            fault = "paths behind links to folders (DVC does not look there)"
        elif not is_file(file):
            fault = MISSING
        elif ignores and ignores(file):
            fault = "files that .dvcignore hides from DVC"
        else:
            continue
        table.faults[fault].append(path)
    gone = table.faults.get(MISSING)
    if gone:
        table.faults[MISSING] = name_near_misses(table.folder, gone)


def name_near_misses(folder: str, gone: list[str]) -> list[str]:
    """Paths that are not there, each with the file that it may mean.

    That is one whose path differs in case, slashes, %20, the Unicode form or
    the suffix; or the only file of its name.
    """
    by_key: dict[str, list[str]] = defaultdict(list)
    start = len(folder) + 1
    for listing in walk_folder(folder):
        for file in listing.images:
            for key in list_keys(file[start:]):
                by_key[key].append(file[start:])
    named = []
    for path in gone:
        found = (by_key[key] for key in list_keys(path) if key in by_key)
        near = next((files[0] for files in found if len(files) == 1), None)
        named.append(f"{path} (there: {near})" if near else path)
    return named


def list_keys(path: str) -> list[str]:
    """What a path is looked up by, the most exact first."""
    plain = unquote(path).replace("\\", "/").strip().casefold()
    plain = unicodedata.normalize("NFC", posixpath.normpath(plain))
    stem = posixpath.splitext(plain)[0]
    name = posixpath.basename(plain)
    return [plain, stem, name, posixpath.splitext(name)[0]]


def find_faults(table: Table) -> Iterator[str]:
    """Yields what is wrong with lines, files, splits, the number of classes."""
    for fault, places in table.faults.items():
        yield f"{fault}: {list_some(places)}"
    named = {row.split for row in table.rows.values()}
    if unknown := sorted(named.difference(SPLITS, [""])):
        allowed = ", ".join(SPLIT_NAMES)
        yield f"unknown splits: {list_some(unknown)} (allowed: {allowed})"
    if named and named != {""}:
        lacking = [path for path, row in table.rows.items() if not row.split]
        if lacking:
            yield f"paths without a split: {list_some(lacking)}"
        if "train" not in named:
            yield "no path with the split train"
    classes = sorted({row.label for row in table.rows.values()})
    yield from find_lookalikes(classes)
    if len(classes) < 2:
        found = ", ".join(classes) or "none"
        yield f"two classes or more are needed; found: {found}"


def find_notes(table: Table) -> Iterator[str]:
    """Yields what is ignored."""
    if table.repeated:
        rows = format_count(len(table.repeated), "row")
        lines = list_some(table.repeated, 3)
        yield f"ignored, the same as an earlier row: {rows}, {lines}"
    start = len(table.folder) + 1
    others = [
        path
        for listing in walk_folder(table.folder)
        for path in listing.images
        if path[start:] not in table.rows
    ]
    if others:
        images = format_count(len(others), "image")
        yield f"ignored, not in the table: {images}, {list_some(others, 3)}"


def list_items(table: Table, classes: list[str]) -> Iterator[Item]:
    """Yields photographs in the order in which folders would have them."""
    label_of = {name: label for label, name in enumerate(classes)}

    def rank(path: str) -> tuple:
        row = table.rows[path]
        split = SPLITS.index(row.split or "train")
        return split, row.label, posixpath.dirname(path), path

    for path in sorted(table.rows, key=rank):
        row = table.rows[path]
        read = partial(read_file, Path(table.folder, path))
        label, split = label_of[row.label], row.split or "train"
        yield Item(path, label, split, read, row.group)
