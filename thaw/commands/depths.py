"""`depths`: runs ranked by validation."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thaw.commands.compare import match_images, open_at
from thaw.errors import InputError
from thaw.evaluate.depths import YES, Row, decide, name_depth
from thaw.evaluate.ranking import rank
from thaw.run.console import say

VALIDATION = "metrics/validation.csv"
DETAILS = "metrics/details/finetune.json"


def main(revs: list[str], json_output: bool) -> None:
    """Prints a table of depths, the best one first, and what it says.

    Args:
        revs: Git revisions or DVC experiments; none for the workspace.
        json_output: for programs.

    Raises:
        InputError: where a run or one of its tables is not at hand.
    """
    rows, notes = rank_runs(revs or [None])
    if json_output:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    say(*notes)
    say_rows(rows)
    say("", decide(rows))


def read_text(path: str, rev: str | None) -> str:
    """A file of a run; of the workspace where there is no revision."""
    if rev is not None:
        with open_at(path, rev) as file:
            return file.read()
    if not Path(path).exists():
        raise InputError(f"{path} is not there; `dvc repro` makes it")
    return Path(path).read_text(encoding="utf-8")


def read_rows(path: str, rev: str | None) -> list[dict[str, str]]:
    return list(csv.DictReader(read_text(path, rev).splitlines()))


def rank_runs(
    revs: Sequence[str | None],
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each run, and what to know of their yardstick.

    Runs are compared on the validation images that all have under one label.
    """
    tables = [read_rows(VALIDATION, rev) for rev in revs]
    keys = [[(row["id"], row["actual"]) for row in table] for table in tables]
    shared = keys[0]
    for other in keys[1:]:
        both = match_images(shared, other)
        shared = [shared[row] for row in both.before]
    if not shared:
        raise InputError("the runs have no validation image in common")
    losses, hits = [], []
    for table, images in zip(tables, keys, strict=True):
        rows = [table[row] for row in match_images(shared, images).after]
        losses.append(np.array([float(row["loss"]) for row in rows]))
        same = [row["actual"] == row["predicted"] for row in rows]
        hits.append(float(np.mean(same)))
    ranking = rank(losses)
    found = []
    for place in ranking.order:
        rev = revs[place]
        details = json.loads(read_text(DETAILS, rev))
        found.append(
            {
                "depth": str(details["blocks"]),
                "rate": float(details["learning_rate"]),
                "epochs": int(details["epochs"]),
                "loss": float(ranking.losses[place]),
                "error": float(ranking.errors[place]),
                "behind": float(ranking.behind[place]),
                "behind_error": float(ranking.behind_errors[place]),
                "close": YES[bool(ranking.is_close[place])],
                "accuracy": hits[place],
                "trainable": int(details["trainable_parameters"]),
                "run": rev or "workspace",
            }
        )
    return found, list(describe_yardstick(len(shared), map(len, keys)))


def describe_yardstick(shared: int, counts: Iterable[int]) -> Iterable[str]:
    most = max(counts)
    if most > shared:
        yield (
            f"the runs share {shared} of up to {most} validation images: the "
            "yardstick changed"
        )


def say_rows(rows: Sequence[Row]) -> None:
    say(
        f"{'depth':18}  {'rate':>7}  epochs  loss   error   behind  error   "
        "within noise  accuracy  trainable"
    )
    for row in rows:
        cells = [
            f"{name_depth(row['depth']):18}",
            f"{row['rate']:7g}",
            f"{row['epochs']:6}",
            f"{row['loss']:.3f}",
            f"{row['error']:.4f}",
            f"{row['behind']:7.4f}",
            f"{row['behind_error']:6.4f}",
            f"{row['close']:>12}",
            f"{row['accuracy']:8.4f}",
            f"{row['trainable']:10,}",
            row["run"],
        ]
        say("  ".join(cells).rstrip())
