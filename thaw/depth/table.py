"""plots/depths.csv: what the race came to, a row for each depth."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.depth.judge import rank
from thaw.files.tables import write_table

if TYPE_CHECKING:
    from thaw.depth.race import Result

# loss is the mean, over the images that judge, of what `measure_losses` gives;
# behind is the mean of what it is beyond the best depth's, image by image. A
# depth is close where one standard error of that reaches the best. Depths that
# left the race early are not compared.
COLUMNS = [
    "blocks",
    "learning_rate",
    "epochs",
    "images",
    "loss",
    "loss_error",
    "behind",
    "behind_error",
    "close",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "trainable_parameters",
    "chosen",
]


def write_depths(
    path: str | Path, results: Sequence["Result"], learning_rate: float
) -> None:
    """Writes the table; without a race, its header alone.

    Args:
        path: of the CSV.
        results: from `Race.run`.
        learning_rate: of all trainings.
    """
    write_table(path, COLUMNS, make_rows(results, learning_rate))


def make_rows(
    results: Sequence["Result"], learning_rate: float
) -> Iterator[list]:
    """A row for each depth, the shallowest first."""
    from scipy.stats import binomtest

    final = [result for result in results if result.stayed]
    ranking = rank([r.losses for r in final]) if final else None
    for result in sorted(results, key=lambda r: r.plan.trainable_parameters):
        alone = rank([result.losses])
        compared: list = ["", "", ""]
        if ranking and result.stayed:
            place = final.index(result)
            compared = [
                float(ranking.behind[place]),
                float(ranking.behind_errors[place]),
                YES[bool(ranking.is_close[place])],
            ]
        chosen = ranking and final[ranking.best] is result
        n = len(result.hits)
        share = binomtest(int(result.hits.sum()), n).proportion_ci(
            method="wilson"
        )
        yield [
            result.blocks,
            learning_rate if result.epochs else "",
            result.epochs,
            n,
            float(alone.losses[0]),
            float(alone.errors[0]),
            *compared,
            float(result.hits.mean()),
            float(share.low),
            float(share.high),
            result.plan.trainable_parameters,
            YES[bool(chosen)],
        ]


YES = {True: "yes", False: "no"}


def parse_race(
    rows: Iterable[Mapping[str, str]], details: Mapping
) -> list[dict[str, Any]]:
    """What the race came to, for people: those that stayed first, then by loss.

    Args:
        rows: of plots/depths.csv.
        details: of the stage; has the seconds of an epoch.

    Returns:
        `Row`s of `thaw.depth.words`.
    """
    found = [
        {
            "depth": row["blocks"],
            "rate": to_number(row["learning_rate"]),
            "epochs": int(row["epochs"]),
            "loss": float(row["loss"]),
            "error": float(row["loss_error"]),
            "behind": to_number(row["behind"]),
            "behind_error": to_number(row["behind_error"]),
            "close": row["close"],
            "accuracy": float(row["accuracy"]),
            "trainable": int(row["trainable_parameters"]),
            "seconds": details["seconds"].get(row["blocks"]),
            "run": "chosen" if row["chosen"] == YES[True] else "",
        }
        for row in rows
    ]
    return sorted(found, key=lambda row: (row["close"] == "", row["loss"]))


def to_number(text: str) -> float | None:
    return float(text) if text else None
