"""One page with all results, for a browser without a network."""

from collections.abc import Iterable

from thaw import params
from thaw.console import run_stage, say_wrote
from thaw.dataset import Dataset
from thaw.files import read_json
from thaw.plan import Plan
from thaw.report import write_report
from thaw.variants import VARIANTS
from thaw.verdict import describe_end, describe_verdict, suggest_depth

PREPARED = "data/prepared"
PLAN = "data/activations/plan.json"
MODEL = "models/finetuned.keras"
DETAILS = {
    "prepare": "metrics/details/prepare.json",
    "head": "metrics/details/head.json",
    "finetune": "metrics/details/finetune.json",
    "evaluate": "metrics/details/evaluate.json",
}
PREDICTIONS = "metrics/predictions.csv"
CURVES = {"head": "plots/head.csv", "finetune": "plots/finetune.csv"}
SCORES = "plots/scores.csv"
RELIABILITY = "plots/reliability.csv"
COUNTS = "plots/classes.csv"
AUGMENTED = "plots/augmented.png"
REPORT = "report.html"


def main() -> Iterable[str]:
    p = params.load()
    details = {stage: read_json(path) for stage, path in DETAILS.items()}
    write_report(
        REPORT,
        params=p,
        dataset=Dataset(PREPARED),
        plan=Plan.read(PLAN),
        model=MODEL,
        metrics=details,
        predictions=PREDICTIONS,
        curves=CURVES,
        scores=SCORES,
        reliability=RELIABILITY,
        counts=COUNTS,
        augmented=AUGMENTED,
    )
    say_wrote(REPORT)
    evaluate, finetune = details["evaluate"], details["finetune"]
    total = VARIANTS[p.backbone.name].blocks
    return describe_end(
        REPORT,
        describe_verdict(evaluate, finetune, p.finetune.blocks),
        suggest_depth(evaluate, finetune, total),
    )


if __name__ == "__main__":
    run_stage(main)
