"""Scores of exports: does each, in its own runtime, say what the model says?"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice

import numpy as np

from thaw.errors import InputError
from thaw.export.contract import Predict
from thaw.files.threads import map_ahead
from thaw.prepare.items import Item, Source
from thaw.run.console import progress

# Test images that each export is scored on, as prepared and as they were. A few
# show a wrong conversion. More would cost time: the slowest runtime of all, and
# every format twice.
CHECKED_IMAGES = 64

ORIGINALS_AHEAD = 16  # images that threads load before they are asked for
LARGEST_BATCH = 16  # images of one size that run together


def pick_rows(labels: np.ndarray, count: int = CHECKED_IMAGES) -> np.ndarray:
    """Picks rows of a split evenly over its classes, the same ones each time.

    Args:
        labels: (n,) int, of the split.
        count: the number of rows at most.

    Returns:
        (min(n, count),) rows in ascending order. Classes that have enough rows
        differ by at most one.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    seen: Counter[int] = Counter()
    turns = []
    for label in labels[order].tolist():
        turns.append(seen[label])
        seen[label] += 1
    return np.sort(order[np.argsort(turns, kind="stable")[:count]])


def load_originals(
    source: Source, index: Sequence[dict[str, str]]
) -> Iterator[np.ndarray]:
    """Loads images (H, W, 3) uint8 as they were before `prepare`.

    Args:
        source: the source of the images.
        index: some rows of a split's index, in the order of the source.

    Raises:
        InputError: where an image is gone, or has other content.
    """

    def load(pair: tuple[Item, dict[str, str]]) -> np.ndarray:
        item, entry = pair
        encoded = item.read()
        if encoded.identity != entry["id"]:
            raise InputError(
                f"{item.path} has changed since the images were prepared"
            )
        return np.asarray(encoded.decode())

    return map_ahead(load, find_items(source, index), ORIGINALS_AHEAD)


def find_items(
    source: Source, index: Sequence[dict[str, str]]
) -> Iterator[tuple[Item, dict[str, str]]]:
    """Finds the item of each entry; InputError where one is missing."""
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
    runtimes: Mapping[str, Predict],
    images: Iterable[np.ndarray],
    total: int,
    label: str,
) -> dict[str, np.ndarray]:
    """Runs every image through every runtime: (total, classes) each."""
    results: dict[str, list[np.ndarray]] = {name: [] for name in runtimes}
    with progress(total, label, "images") as bar:
        for _, alike in groupby(images, key=np.shape):
            while batch := list(islice(alike, LARGEST_BATCH)):
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
    """Scores an export against the model that it was made from.

    Args:
        predicted: (n, classes), the export's, of prepared test images.
        of_originals: (n, classes), the export's, of the original images.
        reference: (n, classes), the model's own calibrated probabilities.
        labels: (n,) int.

    Returns:
        accuracy and largest difference in a probability, of prepared and of
        original images. originals_gap is the difference of the accuracies:
        what the runtime's own resizing costs.
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
    """Raises InputError where a probability differs by more."""
    for name, score in scores.items():
        if not score["max_difference"] <= tolerance:  # or NaN
            raise InputError(
                f"the export {name} differs by {score['max_difference']:.2g} "
                f"in a probability; export.tolerance is {tolerance:g}"
            )
