"""The first rows of metrics/audit.csv, with their pictures."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np

from thaw.data.dataset import Dataset
from thaw.data.splits import SPLITS
from thaw.files.tables import read_table

MOST_DOUBTS = 50
NEAREST = ("nearest", "nearest_2", "nearest_3")

Row: TypeAlias = dict[str, str]


def read_doubts(
    path: str | Path, dataset: Dataset
) -> Iterator[tuple[Row, np.ndarray, list[tuple[Row, np.ndarray]]]]:
    """Reads the pictures whose labels are the most doubtful.

    Args:
        path: metrics/audit.csv.
        dataset: holds the pictures.

    Yields:
        What the table says of a picture, with "why" for corrections.csv; the
        picture (H, W, 3) uint8; and the path and image of the nearest pictures
        of the suggested class, as many as there are.
    """
    rows = list(islice(read_table(path), MOST_DOUBTS))
    wanted = {row[name] for row in rows for name in ("path", *NEAREST)}
    places = find_pictures(dataset, wanted)
    images = {split: dataset.open_images(split) for split in SPLITS}

    def show(name: str) -> np.ndarray:
        split, number = places[name]
        return images[split][number]

    for row in rows:
        alike = [row[name] for name in NEAREST if row[name]]
        yield (
            {**row, "why": explain(row)},
            show(row["path"]),
            [({"path": other}, show(other)) for other in alike],
        )


def find_pictures(
    dataset: Dataset, wanted: set[str]
) -> dict[str, tuple[str, int]]:
    """The split and row of pictures, by path."""
    return {
        entry["path"]: (split, number)
        for split in SPLITS
        for number, entry in enumerate(dataset.read_index(split))
        if entry["path"] in wanted
    }


def explain(row: Row) -> str:
    """As in "audit: 0.03 for shirt, 0.94 for dress"."""
    given, suggested = (
        f"{float(row[name]):.2f}" if row[name] else "no probability"
        for name in ("given_probability", "suggested_probability")
    )
    return (
        f"audit: {given} for {row['given']}, {suggested} for {row['suggested']}"
    )
