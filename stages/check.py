"""Refuses wrong parameters before DVC removes anything."""

from pathlib import Path

from thaw.files.atomic import new_file
from thaw.run import params
from thaw.run.console import run_stage
from thaw.run.tracking import check_untracked

OK = Path("data/params.ok")


def main() -> None:
    p = params.load()
    if p.prepare.reads_folder:
        check_untracked(p.prepare.path)
    # Always the same bytes: what follows re-runs for what it reads itself.
    with new_file(OK) as file:
        file.write_text("params.yaml is well-formed\n")


if __name__ == "__main__":
    run_stage(main, loses=False)
