"""Tables: CSV files of any text."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from thaw.files.atomic import new_file


class TableWriter:
    """Writes CSV rows of any text.

    Before Python 3.13 csv takes a carriage return for nothing to quote.
    """

    def __init__(self, file: TextIO):
        self._plain = csv.writer(file, lineterminator="\n")
        self._quoting = csv.writer(
            file, lineterminator="\n", quoting=csv.QUOTE_ALL
        )

    def writerow(self, row: Sequence) -> None:
        odd = any("\r" in str(value) for value in row)
        (self._quoting if odd else self._plain).writerow(row)


@contextmanager
def new_table(path: str | Path, columns: Sequence[str]) -> Iterator[Any]:
    """A CSV to write with `writerow`, there when the block ends well."""
    with (
        new_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        table = TableWriter(file)
        table.writerow(columns)
        yield table


def write_table(
    path: str | Path, columns: Sequence[str], rows: Iterable[Sequence]
) -> None:
    with new_table(path, columns) as table:
        for row in rows:
            table.writerow(row)


def read_table(path: str | Path) -> Iterator[dict[str, str]]:
    """Its rows, one at a time."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
