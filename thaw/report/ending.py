"""The last lines of a run: what it came to, and what to do next."""

import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from thaw.files.text import read_yaml
from thaw.stage.dvc_files import list_outs

COLUMNS = 79  # of a terminal that is not wide

LOCK = "dvc.lock"
PREPARED = "data/prepared"
PREDICTIONS = "metrics/predictions.csv"


def describe_end(page: str | Path, verdict: str, depth: int) -> Iterator[str]:
    """The last lines of a run, for a terminal of 80 columns.

    Args:
        page: where the report lies.
        verdict: from `describe_verdict`.
        depth: from `suggest_depth`.
    """
    yield from textwrap.wrap(verdict, COLUMNS)
    yield f"All of it is on one page: {page}"
    yield "Next:"
    here, there = list_outs(read_yaml(LOCK)), read_committed(LOCK)
    known = there.get(PREDICTIONS, "")
    if here.get(PREDICTIONS) == known:
        step = (
            f"python -m thaw plan -S finetune.blocks={depth}",
            "what another depth runs",
        )
    elif here.get(PREPARED) == there.get(PREPARED) and is_at_hand(known):
        step = "python -m thaw compare HEAD", "better than what is committed?"
    else:
        step = (
            'git add . && git commit -m "Results"',
            "to compare later runs with",
        )
    for command, why in (
        step,
        ("dvc repro export/dvc.yaml", "the files to deploy"),
    ):
        yield f"    {command:42} # {why}"


def read_committed(lock: str | Path) -> dict[str, str]:
    """As `list_outs`, of the last commit; empty where there is none."""
    try:
        done = subprocess.run(
            ["git", "show", f"HEAD:./{lock}"],
            capture_output=True,
            check=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return list_outs(YAML(typ="safe").load(done.stdout))


def is_at_hand(md5: str) -> bool:
    """Whether DVC's cache, at its default place, holds a file."""
    root = Path(os.environ.get("DVC_ROOT", "."))
    return (root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).is_file()
