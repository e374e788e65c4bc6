"""Scores of predictions, by scikit-learn and SciPy where they have them."""

from pathlib import Path

import numpy as np

from thaw.dataset import Dataset
from thaw.files import write_table


def score_predictions(
    probabilities: np.ndarray, labels: np.ndarray, top_k: int
) -> dict[str, float]:
    """Scores a classifier.

    Args:
        probabilities: (n, classes), rows summing to 1.
        labels: (n,) int.
        top_k: for top-k accuracy; all classes where there are fewer.

    Returns:
        accuracy with its 95 % interval (Wilson's), top-k accuracy, macro F1,
        loss (mean negative log probability) and ece.
    """
    from scipy.stats import binomtest
    from sklearn.metrics import f1_score, log_loss

    predicted = probabilities.argmax(axis=1)
    hits = int((predicted == labels).sum())
    interval = binomtest(hits, len(labels)).proportion_ci(0.95, "wilson")
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    classes = np.arange(probabilities.shape[1])
    return {
        "accuracy": hits / len(labels),
        "accuracy_ci_low": float(interval.low),
        "accuracy_ci_high": float(interval.high),
        f"top{top_k}": float((likeliest == labels[:, None]).any(1).mean()),
        "macro_f1": float(
            f1_score(labels, predicted, average="macro", zero_division=0)
        ),
        "loss": float(log_loss(labels, probabilities, labels=classes)),
        "ece": measure_calibration(probabilities, labels),
    }


def measure_calibration(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> float:
    """Expected calibration error, equal bins (Guo et al., arXiv:1706.04599)."""
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=hits - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def write_predictions(
    path: str | Path,
    dataset: Dataset,
    split: str,
    probabilities: dict[str, np.ndarray],
) -> None:
    """A row for every image: its class, and what each model makes of it.

    Args:
        path: the CSV.
        dataset: where the images come from.
        split: which of them.
        probabilities: model to (n, classes).
    """
    columns = ["id", "path", "actual"]
    for model in probabilities:
        columns += [model, f"{model}_probability"]
    rows = []
    for row, entry in enumerate(dataset.read_index(split)):
        line = [entry["id"], entry["path"], entry["class"]]
        for predicted in probabilities.values():
            likeliest = predicted[row].argmax()
            line.append(dataset.classes[likeliest])
            line.append(f"{predicted[row, likeliest]:.6f}")
        rows.append(line)
    write_table(path, columns, rows)
