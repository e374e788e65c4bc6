"""Refuses wrong parameters before DVC removes anything."""

from pathlib import Path

from thaw import params
from thaw.console import run_stage

OK = Path("data/params.ok")


def main() -> None:
    params.load()
    # Always the same bytes: what follows re-runs for what it reads itself.
    OK.write_text("params.yaml is well-formed\n")


if __name__ == "__main__":
    run_stage(main, loses=False)
