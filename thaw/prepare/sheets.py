"""Tables that people write, as spreadsheets save them: CSV and TSV."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thaw.errors import InputError
from thaw.files.phrases import list_some

SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class Line:
    """A row of a sheet.

    Attributes:
        number: of its last line in the file, from 1.
        cells: column to text; "" where the row is too short.
        excess: whether it has more cells than the sheet has columns.
    """

    number: int
    cells: dict[str, str]
    excess: bool


def read_sheet(path: str | Path, needed: Sequence[str]) -> Iterator[Line]:
    """Its rows, one at a time; empty lines are none.

    UTF-8, with or without a byte order mark, or UTF-16 with one. A first line
    such as "sep=;" names what divides cells; else it is what the first line has
    most of: tabs, commas, semicolons or bars. Names of columns are in lower
    case.

    Args:
        path: the file.
        needed: columns that it must have.

    Raises:
        InputError: where it is no such table, or lacks a column.
    """
    with Path(path).open(encoding=find_encoding(path), newline="") as file:
        try:
            header = file.readline()
            named = re.match(r"sep=(.)\r?\n?$", header)
            skipped = 1 if named else 0
            if not named:
                file.seek(0)
            delimiter = named[1] if named else find_delimiter(header)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = [name.strip().lower() for name in next(reader, [])]
            check_columns(path, names, needed)
            for cells in filter(None, reader):
                if "\0" in "".join(cells):
                    raise csv.Error("a NUL character")
                padded = cells + [""] * (len(names) - len(cells))
                yield Line(
                    reader.line_num + skipped,
                    dict(zip(names, padded, strict=False)),
                    len(cells) > len(names),
                )
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is in neither UTF-8 nor UTF-16 with a byte order mark"
            ) from error
        except csv.Error as error:
            raise InputError(
                f"{path} is no table, near line {reader.line_num}: {error}"
            ) from error


def find_encoding(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        mark = file.read(2)
    return "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def find_delimiter(header: str) -> str:
    """Of equal counts the first one: a comma, where there is none."""
    return max(",;\t|", key=header.count)


def check_columns(
    path: str | Path, names: list[str], needed: Sequence[str]
) -> None:
    """Raises InputError for columns that are missing, or there twice."""
    lacking = [x for x in needed if x not in names]
    several = sorted({x for x in names if names.count(x) > 1 and x})
    problems = [
        f"{what} columns: {list_some(columns)}"
        for what, columns in [("lacks", lacking), ("has several", several)]
        if columns
    ]
    if problems:
        found = list_some([*filter(None, names)]) or "none"
        raise InputError(f"{path} {'; '.join(problems)}; its columns: {found}")
