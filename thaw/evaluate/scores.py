"""Scores of predictions, by scikit-learn and SciPy where they have them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from thaw.files.tables import write_table
from thaw.linear.temperature import calibrate


def score_predictions(
    probabilities: np.ndarray,
    labels: np.ndarray,
    temperature: float,
    top_k: int,
) -> dict[str, float]:
    """Scores a classifier.

    Args:
        probabilities: (n, classes), rows summing to 1.
        labels: (n,) int.
        temperature: that calibrates them, fitted on other images.
        top_k: for top-k accuracy, where there are more classes than that.

    Returns:
        accuracy with its 95 % interval (Wilson's), top-k accuracy unless it
        would be 1 whatever the model says, macro F1,
        loss (mean negative log probability) and ece (expected calibration
        error), these two as calibrated by the temperature as well.
    """
    from scipy.stats import binomtest
    from sklearn.metrics import f1_score, log_loss

    predicted = probabilities.argmax(axis=1)
    hits = int((predicted == labels).sum())
    interval = binomtest(hits, len(labels)).proportion_ci(0.95, "wilson")
    classes = np.arange(probabilities.shape[1])
    top = {}
    if top_k < len(classes):
        ranks = rank_labels(probabilities, labels)
        top[f"top{top_k}"] = float(np.mean(ranks <= top_k))
    calibrated = calibrate(probabilities, temperature)
    return {
        "accuracy": hits / len(labels),
        "accuracy_ci_low": float(interval.low),
        "accuracy_ci_high": float(interval.high),
        **top,
        "macro_f1": float(
            f1_score(labels, predicted, average="macro", zero_division=0)
        ),
        "loss": float(log_loss(labels, probabilities, labels=classes)),
        "ece": measure_calibration(probabilities, labels),
        "temperature": temperature,
        "calibrated_loss": float(log_loss(labels, calibrated, labels=classes)),
        "calibrated_ece": measure_calibration(calibrated, labels),
    }


def rank_labels(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Place of each image's own class among all: (n,) int, 1 the likeliest.

    Of equal probabilities the first class comes first, as in `argmax`.
    """
    own = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > own) | ((probabilities == own) & before)
    return 1 + ahead.sum(axis=1)


def write_scores(
    path: str | Path,
    probabilities: dict[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
) -> None:
    """A CSV with precision, recall, F1 and images of each model and class."""
    from sklearn.metrics import precision_recall_fscore_support

    rows = []
    # scikit-learn counts in floats if no image is classified right.
    images = np.bincount(labels, minlength=len(classes))
    for model, predicted in probabilities.items():
        *scores, _ = precision_recall_fscore_support(
            labels,
            predicted.argmax(axis=1),
            labels=range(len(classes)),
            zero_division=0,
        )
        columns = zip(classes, *scores, images, strict=True)
        rows += [(model, *row) for row in columns]
    header = ["model", "class", "precision", "recall", "f1", "images"]
    write_table(path, header, rows)


def write_reliability(
    path: str | Path,
    probabilities: dict[str, np.ndarray],
    labels: np.ndarray,
    temperatures: dict[str, float],
) -> None:
    """A CSV with confidence and accuracy of each model, bin by bin, before
    and after calibration; bins without an image are left out."""
    rows = []
    for name, predicted in probabilities.items():
        calibrated = calibrate(predicted, temperatures[name])
        models = {name: predicted, f"{name}, calibrated": calibrated}
        for model, shown in models.items():
            bins = zip(*bin_confidence(shown, labels), strict=True)
            rows += [(model, *row) for row in bins if row[-1]]
    write_table(path, ["model", "confidence", "accuracy", "images"], rows)


BINS = 15


def bin_confidence(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images by the probability of their likeliest class, in equal bins.

    Args:
        probabilities: (n, classes).
        labels: (n,) int.

    Returns:
        Mean confidence, accuracy and number of images of each bin: (BINS,)
        each, NaN for the first two where there are none.
    """
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(which, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means, accuracies = (
            np.bincount(which, weights=values, minlength=BINS) / count
            for values in (confidence, hits)
        )
    return means, accuracies, count


def measure_calibration(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: the mean gap between the two."""
    confidence, accuracy, count = bin_confidence(probabilities, labels)
    gaps = np.abs(np.nan_to_num(accuracy - confidence))
    return float((gaps * count).sum() / len(labels))
