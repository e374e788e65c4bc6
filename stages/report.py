"""One page with all results, for a browser without a network."""

from collections.abc import Iterable

from thaw.data.dataset import Dataset
from thaw.data.views import gather_views
from thaw.files.text import read_json
from thaw.network.plan import Plan
from thaw.report.ending import describe_end
from thaw.report.page import Results, write_report
from thaw.report.pictures import draw_duplicates, draw_views
from thaw.run import params
from thaw.run.console import say_wrote
from thaw.stage.runner import run_stage

PREPARED = "data/prepared"
PLAN = "data/activations/plan.json"
MODEL = "models/finetuned.keras"
DETAILS = {
    "prepare": "metrics/details/prepare.json",
    "head": "metrics/details/head.json",
    "audit": "metrics/details/audit.json",
    "finetune": "metrics/details/finetune.json",
    "evaluate": "metrics/details/evaluate.json",
}
PREDICTIONS = "metrics/predictions.csv"
HEAT = "metrics/heat.npy"
AUDIT = "metrics/audit.csv"
CORRECTIONS = "corrections.csv"
CURVES = {"head": "plots/head.csv", "finetune": "plots/finetune.csv"}
SCORES = "plots/scores.csv"
RELIABILITY = "plots/reliability.csv"
COUNTS = "plots/classes.csv"
AUGMENTED = "plots/augmented.png"
DUPLICATES = "plots/duplicates.png"
REPORT = "report.html"


def main() -> Iterable[str]:
    p = params.load()
    dataset = Dataset(PREPARED)
    views = gather_views(dataset, "train", p.augment.model_dump())
    draw_views(AUGMENTED, dataset, views, p.extract.views)
    draw_duplicates(DUPLICATES, dataset)
    results = Results(
        params=p,
        dataset=dataset,
        plan=Plan.read(PLAN),
        model=MODEL,
        details={stage: read_json(path) for stage, path in DETAILS.items()},
        predictions=PREDICTIONS,
        heat=HEAT,
        audit=AUDIT,
        corrections=CORRECTIONS,
        curves=CURVES,
        scores=SCORES,
        reliability=RELIABILITY,
        counts=COUNTS,
        augmented=AUGMENTED,
    )
    write_report(REPORT, results)
    say_wrote(REPORT, AUGMENTED, DUPLICATES)
    return describe_end(REPORT, results.verdict, results.next_depth)


if __name__ == "__main__":
    run_stage(main)
