"""Exports, scored by their own runtimes: do they say what the model says?"""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice

import numpy as np

from thaw.console import progress
from thaw.errors import InputError
from thaw.runtimes import Predict
from thaw.sources import Item, Source
from thaw.threads import map_ahead

AHEAD = 16  # pictures that threads have at hand
BATCH = 16  # pictures of one size that run together


def load_originals(
    source: Source, index: Sequence[dict[str, str]]
) -> Iterator[np.ndarray]:
    """Images (H, W, 3) uint8 as they were before they were prepared.

    Args:
        source: that they come from.
        index: of a split; its order is the source's.

    Raises:
        InputError: where one is another than it was.
    """

    def load(pair: tuple[Item, dict[str, str]]) -> np.ndarray:
        item, entry = pair
        identity, image = item.load()
        if (item.path, identity) != (entry["path"], entry["id"]):
            raise InputError(f"{item.path} is another image than it was")
        return np.asarray(image)

    wanted = {entry["path"] for entry in index}
    items = (item for item in source.items if item.path in wanted)
    return map_ahead(load, zip(items, index, strict=True), AHEAD)


def predict_each(
    runtimes: dict[str, Predict],
    images: Iterator[np.ndarray],
    total: int,
    label: str,
) -> dict[str, np.ndarray]:
    """What every runtime makes of every image: (total, classes) each."""
    results = {name: [] for name in runtimes}
    with progress(total, label, "images") as bar:
        for _, alike in groupby(images, key=np.shape):
            while batch := list(islice(alike, BATCH)):
                for name, predict in runtimes.items():
                    results[name].append(predict(np.array(batch)))
                bar.update(len(batch))
    return {name: np.concatenate(rows) for name, rows in results.items()}


def score_export(
    predicted: np.ndarray,
    of_originals: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
) -> dict[str, float]:
    """Scores an export against the model that it was made of.

    Args:
        predicted: (n, classes), of the prepared test images.
        of_originals: (n, classes), of the images as they were before.
        reference: (n, classes), the model's own calibrated probabilities.
        labels: (n,) int.

    Returns:
        accuracy and largest difference in a probability, of prepared images
        and of originals; originals_gap, the difference of the two accuracies,
        is what the runtime's own resizing costs.
    """
    accuracy, of_files = (
        float((x.argmax(axis=1) == labels).mean())
        for x in (predicted, of_originals)
    )
    return {
        "accuracy": accuracy,
        "max_difference": float(np.abs(predicted - reference).max()),
        "originals_accuracy": of_files,
        "originals_gap": of_files - accuracy,
        "originals_max_difference": float(
            np.abs(of_originals - reference).max()
        ),
    }


def check_tolerance(scores: dict[str, dict], tolerance: float) -> None:
    """Raises InputError where an export differs by more in a probability."""
    for name, score in scores.items():
        if not score["max_difference"] <= tolerance:  # or NaN
            raise InputError(
                f"the export {name} differs by {score['max_difference']:.2g} "
                f"in a probability; export.tolerance is {tolerance:g}"
            )
