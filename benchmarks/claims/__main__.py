"""The claims of the Keras guide, and ours, measured on photographs.

    python -m benchmarks.claims DATA --weights FILE [--only range views ...]

DATA holds the folders clothing, sign-digits and traffic-signs; FILE the
ImageNet weights of EfficientNetB4 without its top. Each run leaves its results
in docs/claims/NAME.json, and what is there is not run again. The page
docs/claims.md is made of them; without DATA that alone.
"""

import argparse
import json
from pathlib import Path

from benchmarks.claims.page import write_page
from benchmarks.project import ROOT
from thaw.files.text import write_json
from thaw.stage.environment import describe_environment

RESULTS = ROOT / "docs" / "claims"


def run_claim(name: str, bench) -> None:
    """Runs what is not in its file yet, and adds it there."""
    from benchmarks.claims.experiments import EXPERIMENTS

    path = RESULTS / f"{name}.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    done = {(run["set"], run["arm"], run["seed"]) for run in runs}
    for run in EXPERIMENTS[name](bench):
        known = {"set": run.set, "arm": run.arm, "seed": run.seed}
        if tuple(known.values()) in done:
            continue
        result = run.do()
        print(name, *known.values(), result.get("seconds", ""), flush=True)
        runs.append(known | result | {"environment": describe_environment()})
        write_json(path, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--work", type=Path, default=ROOT / ".dvc/tmp/claims")
    parser.add_argument("--only", nargs="+")
    options = parser.parse_args()
    if options.data:
        from benchmarks.claims.experiments import EXPERIMENTS, Bench

        bench = Bench(
            options.data.resolve(),
            options.weights.resolve(),
            options.work.resolve(),
        )
        for name in options.only or EXPERIMENTS:
            run_claim(name, bench)
    write_page(RESULTS, ROOT / "docs" / "claims.md")


if __name__ == "__main__":
    main()
