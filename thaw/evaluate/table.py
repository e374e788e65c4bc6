"""metrics/predictions.csv: a row for every test image, written and read."""

import csv
from pathlib import Path
from typing import TextIO

import numpy as np

from thaw.data.dataset import Dataset
from thaw.errors import InputError
from thaw.evaluate.scores import rank_labels
from thaw.files.tables import write_table
from thaw.linear.temperature import calibrate

# Of each model, after the class that it predicts.
COLUMNS = ("probability", "calibrated", "actual_probability", "actual_rank")


def write_predictions(
    path: str | Path,
    dataset: Dataset,
    split: str,
    probabilities: dict[str, np.ndarray],
    temperatures: dict[str, float],
) -> None:
    """A row for every image: its class, and what each model makes of it.

    Probabilities have the digits that give the same float32 back.

    Args:
        path: the CSV.
        dataset: where the images come from.
        split: which of them.
        probabilities: model to (n, classes).
        temperatures: of each model.
    """
    labels = dataset.open_labels(split)
    columns = ["id", "path", "actual"]
    parts = []
    for model, predicted in probabilities.items():
        columns += [model, *(f"{model}_{name}" for name in COLUMNS)]
        rows, likeliest = np.arange(len(labels)), predicted.argmax(axis=1)
        calibrated = calibrate(predicted, temperatures[model])
        parts.append(
            zip(
                (dataset.classes[label] for label in likeliest),
                map(format_float, predicted[rows, likeliest]),
                map(format_float, calibrated[rows, likeliest]),
                map(format_float, predicted[rows, labels]),
                rank_labels(predicted, labels),
                strict=True,
            )
        )
    index = dataset.read_index(split)
    write_table(
        path,
        columns,
        (
            [entry["id"], entry["path"], entry["class"], *sum(values, ())]
            for entry, *values in zip(index, *parts, strict=True)
        ),
    )


def format_float(value: np.float32) -> str:
    return np.format_float_positional(np.float32(value), trim="0")


def read_hits(
    file: TextIO, model: str
) -> tuple[list[tuple[str, str]], np.ndarray]:
    """What a table says of one model, in an order that the images alone give.

    Args:
        file: the CSV, open.
        model: one of its models.

    Returns:
        id and class of every image, and (n,) bool: whether the model is right.

    Raises:
        InputError: where the table has no such model.
    """
    reader = csv.DictReader(file)
    if not {"id", "path", "actual", model} <= set(reader.fieldnames or ()):
        raise InputError(f"there are no predictions of {model}")
    rows = sorted((x["id"], x["actual"], x[model]) for x in reader)
    images = [(identity, actual) for identity, actual, _ in rows]
    return images, np.array([actual == got for _, actual, got in rows])
