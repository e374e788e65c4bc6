"""plots/depths.csv: what the race came to, a row for each depth."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.depth.judge import rank
from thaw.depth.words import YES
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


def write_depths(path: str | Path, results: Sequence["Result"]) -> None:
    """Writes the table; without a race, its header alone.

    Args:
        path: of the CSV.
        results: from `Race.run`.
    """
    write_table(path, COLUMNS, make_rows(results))


def make_rows(results: Sequence["Result"]) -> Iterator[list]:
    """A row for each depth, the shallowest first."""
    if not results:
        return  # before SciPy is imported, which takes longer than the stage
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
            result.learning_rate or "",
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
