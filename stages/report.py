"""One page with all results, for a browser without a network."""

from thaw import params
from thaw.console import run_stage, say_wrote
from thaw.dataset import Dataset
from thaw.files import read_json
from thaw.plan import Plan
from thaw.report import write_report

PREPARED = "data/prepared"
PLAN = "data/activations/plan.json"
MODEL = "models/finetuned.keras"
METRICS = {
    "prepare": "metrics/prepare.json",
    "head": "metrics/head.json",
    "finetune": "metrics/finetune.json",
    "evaluate": "metrics/evaluate.json",
}
PREDICTIONS = "metrics/predictions.csv"
CURVES = {"head": "plots/head.csv", "finetune": "plots/finetune.csv"}
SCORES = "plots/scores.csv"
RELIABILITY = "plots/reliability.csv"
COUNTS = "plots/classes.csv"
AUGMENTED = "plots/augmented.png"
DUPLICATES = "plots/duplicates.png"
REPORT = "report.html"


def main() -> None:
    write_report(
        REPORT,
        params=params.load(),
        dataset=Dataset(PREPARED),
        plan=Plan.read(PLAN),
        model=MODEL,
        metrics={stage: read_json(path) for stage, path in METRICS.items()},
        predictions=PREDICTIONS,
        curves=CURVES,
        scores=SCORES,
        reliability=RELIABILITY,
        counts=COUNTS,
        augmented=AUGMENTED,
        duplicates=DUPLICATES,
    )
    say_wrote(REPORT)


if __name__ == "__main__":
    run_stage(main)
