"""Stages that DVC would run again with other parameters."""

import logging
from pathlib import Path

from thaw.errors import InputError
from thaw.files.text import read_yaml
from thaw.stage.dvc_files import fill_in, get_value


def list_reruns(values: dict, changed: set[str]) -> list[str]:
    """Lists the stages that these parameters would run again, in order.

    A stage runs again where a parameter, a file or an output differs from
    dvc.lock. So does each stage behind it, although it may turn out to write
    what it wrote before. `check` runs at any change and is left out.

    Args:
        values: of params.yaml, compared with those of dvc.lock as DVC does.
        changed: stages that run again whatever the parameters.
    """
    stages = read_yaml("dvc.yaml")["stages"]
    lock = Path("dvc.lock")
    known = read_yaml(lock)["stages"] if lock.exists() else {}
    rerun: list[str] = []
    outs: list[Path] = []
    for name, stage in stages.items():
        locked = known.get(name, {}).get("params", {}).get("params.yaml", {})
        deps = [Path(fill_in(path, values)) for path in stage.get("deps", ())]
        if name != "check" and (
            name in changed
            or name not in known
            or any(
                key not in locked or get_value(values, key) != locked[key]
                for key in stage.get("params", ())
            )
            or any(path.is_relative_to(out) for path in deps for out in outs)
        ):
            rerun.append(name)
            outs += list_outputs(stage)
    return rerun


def list_outputs(stage: dict) -> list[Path]:
    """The outputs of a stage of dvc.yaml, metrics among them."""
    outs = [*stage.get("outs", ()), *stage.get("metrics", ())]
    return [
        Path(next(iter(out)) if isinstance(out, dict) else out) for out in outs
    ]


def find_changes() -> set[str]:
    """Finds the stages that changed in more than their parameters.

    Raises:
        InputError: where DVC can't tell.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        with Repo() as repo:
            status = repo.status()
    except DvcException as error:
        raise InputError(f"`dvc status` fails: {error}") from error

    def is_news(change: str | dict) -> bool:
        files = change.get("changed deps") if isinstance(change, dict) else None
        return files is None or set(files) != {"params.yaml"}

    return {name for name, news in status.items() if any(map(is_news, news))}
