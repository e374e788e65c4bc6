"""metrics/audit.csv: every picture, the most doubtful label first."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thaw.audit.neighbours import Neighbours
from thaw.audit.opinions import Opinions
from thaw.files.tables import write_table

COLUMNS = (
    "id",
    "path",
    "split",
    "given",
    "suggested",
    "given_probability",
    "suggested_probability",
    "given_vote",
    "suggested_vote",
    "doubtful",
    "copies",
    "nearest",
    "nearest_2",
    "nearest_3",
)

MOST_PAIRS = 20


def write_audit(
    path: str | Path,
    index: Sequence[dict[str, str]],
    classes: Sequence[str],
    opinions: Opinions,
    neighbours: Neighbours,
) -> None:
    """Writes a row for each picture.

    Probabilities have four digits. A cell is empty where nothing can be told:
    no other picture has the label, or the row is far behind those whose
    neighbours were looked for.

    Args:
        path: the CSV.
        index: id, path, split and copies of each row.
        classes: names.
        opinions: of all rows.
        neighbours: of the first ones.
    """
    rows = list_rows(index, classes, opinions, neighbours)
    write_table(path, COLUMNS, rows)


def list_rows(
    index: Sequence[dict[str, str]],
    classes: Sequence[str],
    opinions: Opinions,
    neighbours: Neighbours,
) -> Iterator[list[str]]:
    places = {int(row): place for place, row in enumerate(neighbours.rows)}
    for row in map(int, opinions.order):
        entry, cells = index[row], [""] * 3
        votes = ["", ""]
        if row in places:
            place = places[row]
            both = neighbours.given_vote, neighbours.suggested_vote
            votes = [format_share(vote[place]) for vote in both]
            cells = [
                index[other]["path"] if other >= 0 else ""
                for other in neighbours.nearest[place]
            ]
        yield [
            entry["id"],
            entry["path"],
            entry["split"],
            classes[opinions.given[row]],
            classes[opinions.suggested[row]],
            format_share(opinions.probability[row]),
            format_share(opinions.suggested_probability[row]),
            *votes,
            "yes" if opinions.doubtful[row] else "",
            entry["copies"],
            *cells,
        ]


def format_share(share: float) -> str:
    return "" if np.isnan(share) else f"{share:.4g}"


def count_doubts(
    index: Sequence[dict[str, str]],
    classes: Sequence[str],
    opinions: Opinions,
) -> dict[str, Any]:
    """How many labels are doubtful, by split and by pair of classes.

    Args:
        index: split of each row.
        classes: names.
        opinions: of all rows.
    """
    rows = [int(row) for row in np.flatnonzero(opinions.doubtful)]
    splits = Counter(entry["split"] for entry in index)
    doubtful = Counter(index[row]["split"] for row in rows)
    pairs = Counter(
        (classes[opinions.given[row]], classes[opinions.suggested[row]])
        for row in rows
    )
    return {
        "images": len(index),
        "doubtful": len(rows),
        "not_judged": int((~opinions.judged).sum()),
        "splits": {split: doubtful[split] for split in splits},
        "pairs": [
            {"given": given, "suggested": suggested, "images": images}
            for (given, suggested), images in pairs.most_common(MOST_PAIRS)
        ],
    }
