"""Exports, scored by their own runtimes: do they say what the model says?"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, islice

import numpy as np

from thaw.errors import InputError
from thaw.export.runtimes import Predict
from thaw.prepare.items import Item, Source
from thaw.run.console import progress
from thaw.run.threads import map_ahead

# Test images that each export is scored on, as prepared and as they were. A
# wrong conversion shows in a few; what more of them take is the time of the
# slowest runtime, of each format twice.
IMAGES = 64

AHEAD = 16  # pictures that threads have at hand
BATCH = 16  # pictures of one size that run together


def pick_rows(labels: np.ndarray, count: int = IMAGES) -> np.ndarray:
    """Rows of a split, spread over its classes, the same ones each time.

    Args:
        labels: (n,) int, of the split.
        count: of rows at most.

    Returns:
        (min(n, count),) rows in order: of each class as many, give or take
        one, as far as it has them.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    seen, turns = Counter(), []
    for label in labels[order].tolist():
        turns.append(seen[label])
        seen[label] += 1
    return np.sort(order[np.argsort(turns, kind="stable")[:count]])


def load_originals(
    source: Source, index: Sequence[dict[str, str]]
) -> Iterator[np.ndarray]:
    """Images (H, W, 3) uint8 as they were before they were prepared.

    Args:
        source: that they come from.
        index: some rows of a split; their order is the source's.

    Raises:
        InputError: where one is gone, or another than it was.
    """

    def load(pair: tuple[Item, dict[str, str]]) -> np.ndarray:
        item, entry = pair
        identity, image = item.load()
        if identity != entry["id"]:
            raise InputError(f"{item.path} is another image than it was")
        return np.asarray(image)

    return map_ahead(load, find_items(source, index), AHEAD)


def find_items(
    source: Source, index: Sequence[dict[str, str]]
) -> Iterator[tuple[Item, dict[str, str]]]:
    """Each with its entry of the index; InputError where one is missing."""
    wanted = {entry["path"] for entry in index}
    items = (item for item in source.items if item.path in wanted)
    for entry in index:
        item = next(items, None)
        if item is None or item.path != entry["path"]:
            raise InputError(
                f"the test image {entry['path']} is not where it was when the "
                "images were prepared: `dvc repro` prepares those that are"
            )
        yield item, entry


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
