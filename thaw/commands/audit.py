"""`audit`: labels that may be wrong, the most doubtful first."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from thaw.commands.compare import open_at
from thaw.errors import InputError
from thaw.files.tables import read_table
from thaw.run.console import say

AUDIT = "metrics/audit.csv"


def main(
    top: int, given: str | None, split: str | None, rev: str | None
) -> None:
    """Prints the first rows of metrics/audit.csv.

    Args:
        top: how many, at most.
        given: only images that have this label; None: any.
        split: only those of this split; None: any.
        rev: a Git revision or a DVC experiment; None: the workspace.

    Raises:
        InputError: where there is no such table, or it has no such image.
    """
    rows = (
        row
        for row in read_rows(rev)
        if given in (None, row["given"]) and split in (None, row["split"])
    )
    shown = list(islice(rows, top))
    if not shown:
        raise InputError(f"{AUDIT} has no such image")
    say_rows(shown)


def read_rows(rev: str | None) -> Iterator[dict[str, str]]:
    if rev is not None:
        with open_at(AUDIT, rev) as file:
            yield from csv.DictReader(file)
        return
    if not Path(AUDIT).exists():
        raise InputError(f"{AUDIT} is not there; `dvc repro audit` makes it")
    yield from read_table(AUDIT)


def say_rows(rows: list[dict[str, str]]) -> None:
    """A line for each image, and what the columns mean."""
    names = ("given", "suggested")
    widths = [
        max(len(name), *(len(row[name]) for row in rows)) for name in names
    ]
    given, suggested = (
        f"{name:{width}}" for name, width in zip(names, widths, strict=True)
    )
    say(f"{given}  likely  {suggested}  likely  nearest  doubtful  image")
    for row in rows:
        cells = [f"{row[x]:{n}}" for x, n in zip(names, widths, strict=True)]
        say(
            f"{cells[0]}  {format_cell(row['given_probability']):>6}  "
            f"{cells[1]}  {format_cell(row['suggested_probability']):>6}  "
            f"{format_cell(row['suggested_vote']):>7}  {row['doubtful']:8}  "
            f"{row['path']}"
        )
    say("", "nearest: the share of the 10 nearest images that have `suggested`")


def format_cell(text: str) -> str:
    return f"{float(text):.2f}" if text else "-"
