"""Refuses wrong parameters before DVC removes anything."""

from pathlib import Path

from thaw.files.atomic import new_file
from thaw.run import params
from thaw.run.tracking import check_readable, check_untracked
from thaw.run.weights import check_weights
from thaw.stage.runner import run_stage

OK = Path("data/params.ok")


def main() -> None:
    p = params.load()
    if p.prepare.source in params.IN_FOLDER:
        check_untracked(p.prepare.path)
    check_readable(p.prepare.path)
    if p.backbone.weights == "imagenet":
        check_weights(p.backbone.name, p.backbone.model_dump())
    # Always the same bytes: what follows re-runs for what it reads itself.
    with new_file(OK) as file:
        file.write_text("params.yaml is well-formed\n")


if __name__ == "__main__":
    run_stage(main, loses=False)
