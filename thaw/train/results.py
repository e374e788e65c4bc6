"""What a stage that trains leaves beside its model: metrics, curves, words."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thaw.files.tables import write_table
from thaw.files.text import write_json
from thaw.linear.temperature import measure_losses
from thaw.stage.environment import describe_environment
from thaw.train.choice import SHIPPED_HEAD

# Columns of the learning curves.
CURVES = [
    "epoch",
    "accuracy",
    "loss",
    "val_accuracy",
    "val_loss",
    "val_calibrated_loss",
]

# Columns of what validation says, image by image: the loss is what
# `measure_losses` gives after the model's own temperature.
VALIDATION = ["id", "actual", "predicted", "loss"]


@dataclass(frozen=True)
class Training:
    """What came of a training.

    Attributes:
        epochs: that the weights have seen; 0: they are those of the start.
        scores: of these weights on validation, by `score_logits`.
        logits: of these weights on validation, (n, classes).
        start: the scores of the start; None where it is random or unknown.
        learning_rate: the highest that it had; None without steps.
        lost: whether it was given up, or ended beyond the limit: `Validation`.
        advice: a sentence on what to try next, or None.
        curves: losses and accuracies, a row an epoch.
    """

    epochs: int
    scores: dict[str, float]
    logits: np.ndarray
    start: dict[str, float] | None = None
    learning_rate: float | None = None
    lost: bool = False
    advice: str | None = None
    curves: list[dict] = field(default_factory=list)


def write_results(
    training: Training,
    metrics: str | Path,
    details: str | Path,
    curves: str | Path,
    **more: Any,
) -> None:
    """Writes two JSON files and a CSV.

    Args:
        training: what came of it.
        metrics: gets what people decide by.
        details: gets all else.
        curves: gets a row an epoch.
        more: of the details.
    """
    scores, start = training.scores, training.start
    shipped, head = {}, {}
    if start:
        shipped = {"shipped": "finetuned" if training.epochs else "head"}
        head = {
            "head_validation_accuracy": start["accuracy"],
            "head_validation_loss": start["calibrated_loss"],
        }
    write_json(metrics, {"validation_loss": scores["calibrated_loss"]})
    write_json(
        details,
        {
            **shipped,
            "epochs": training.epochs,
            "validation_accuracy": scores["accuracy"],
            "validation_loss": scores["calibrated_loss"],
            "temperature": scores["temperature"],
            **head,
            **more,
            "environment": describe_environment(),
        },
    )
    rows = [[row[name] for name in CURVES] for row in training.curves]
    write_table(curves, CURVES, rows)


def write_validation(
    path: str | Path,
    training: Training,
    labels: np.ndarray,
    ids: Iterable[str],
    classes: Sequence[str],
) -> None:
    """Writes what the model makes of each validation image.

    Args:
        path: of the CSV.
        training: what came of it.
        labels: (n,) int.
        ids: of the images, as data/prepared has them.
        classes: their names.
    """
    logits = training.logits
    losses = measure_losses(logits, labels, training.scores["temperature"])
    names = [[classes[i] for i in x] for x in (labels, logits.argmax(axis=1))]
    rows = zip(ids, *names, losses.tolist(), strict=True)
    write_table(path, VALIDATION, rows)


def describe_results(training: Training) -> Iterator[str]:
    """What came of it, for people, and the advice."""
    accuracy = f"validation accuracy {training.scores['accuracy']:.4f}"
    if training.start is None:
        yield accuracy
    elif training.epochs:
        before = training.start["accuracy"]
        yield f"{accuracy} ({before:.4f} with the head alone)"
    elif training.curves:
        yield SHIPPED_HEAD
    else:
        yield f"{accuracy} of the head alone, which is shipped"
    if training.advice:
        yield f"advice: {training.advice}"
