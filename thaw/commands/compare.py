"""`compare`: two runs, Git revisions or DVC experiments, image by image."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from thaw.errors import InputError
from thaw.evaluate.comparison import Comparison, compare_hits
from thaw.evaluate.table import read_hits
from thaw.files.phrases import format_count
from thaw.run.console import say

PREDICTIONS = "metrics/predictions.csv"


@contextmanager
def open_at(path: str, rev: str) -> Iterator[TextIO]:
    """Opens a file as it was at a Git revision or in a DVC experiment.

    Raises:
        InputError: where there is no such revision, where it has no such file,
            or where DVC's cache lacks the file.
    """
    import dvc.api
    from dvc.exceptions import DvcException
    from dvc.scm import RevError

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        with dvc.api.open(path, rev=rev, encoding="utf-8") as file:
            yield file
    except RevError as error:
        raise InputError(
            f"{rev} is no Git revision and no DVC experiment"
        ) from error
    except (DvcException, FileNotFoundError) as error:
        raise InputError(
            f"{path} of {rev} is not at hand; `dvc fetch` brings it from a "
            "remote, where one has it"
        ) from error


def read_run(
    rev: str | None, model: str
) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Reads a run's test images and hits, as `read_hits` returns them.

    Args:
        rev: a Git revision or a DVC experiment; None: the workspace.
        model: which of the run's models.

    Raises:
        InputError: where the run has no predictions, or none of the model.
    """
    if rev is not None:
        with open_at(PREDICTIONS, rev) as file:
            return read_hits(file, model)
    if not Path(PREDICTIONS).exists():
        raise InputError(f"{PREDICTIONS} is not there; `dvc repro` makes it")
    with Path(PREDICTIONS).open(encoding="utf-8", newline="") as file:
        return read_hits(file, model)


@dataclass(frozen=True)
class Shared:
    """The test images that two runs have under the same label.

    Attributes:
        classes: (n,) str, the label of each image.
        before, after: (n,) int, the row of each image in each run.
        relabelled: the number of images that both runs have, but under
            different labels.
        alone: the number of images that one run alone has.
    """

    classes: np.ndarray
    before: np.ndarray
    after: np.ndarray
    relabelled: int
    alone: int

    def describe_change(self) -> str | None:
        """How the test sets differ, if they do."""
        labels = format_count(
            self.relabelled, "test label differs", "test labels differ"
        )
        images = format_count(self.alone, "test image is", "test images are")
        parts = [labels] if self.relabelled else []
        parts += [f"{images} in one run alone"] if self.alone else []
        return f"{', '.join(parts)}: the yardstick changed" if parts else None


def match_images(
    before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> Shared:
    """Finds each image of one run in another.

    An image that a run holds several times counts as often as both hold it.

    Args:
        before, after: id and class of every image.
    """
    rows_before, rows_after = number_copies(before), number_copies(after)
    shared = sorted(rows_before.keys() & rows_after.keys())
    # An image that has no match may have one under another label.
    only_before = Counter(x for x, *_ in rows_before.keys() - rows_after.keys())
    only_after = Counter(x for x, *_ in rows_after.keys() - rows_before.keys())
    relabelled = (only_before & only_after).total()
    return Shared(
        classes=np.array([name for _, name, _ in shared], str),
        before=np.array([rows_before[key] for key in shared], int),
        after=np.array([rows_after[key] for key in shared], int),
        relabelled=relabelled,
        alone=only_before.total() + only_after.total() - 2 * relabelled,
    )


def number_copies(
    images: list[tuple[str, str]],
) -> dict[tuple[str, str, int], int]:
    """The row of each image, by id, class and number of equals before it."""
    seen: Counter[tuple[str, str]] = Counter()
    rows = {}
    for row, image in enumerate(images):
        rows[*image, seen[image]] = row
        seen[image] += 1
    return rows


def compare_classes(
    classes: np.ndarray, before: np.ndarray, after: np.ndarray
) -> Iterator[tuple[str, Comparison, float]]:
    """Compares the recall of each class.

    Args:
        classes: (n,) str, the label of each image.
        before, after: (n,) bool, the hits of each run.

    Yields:
        The class, its comparison, and its p value adjusted for the number of
        classes (Benjamini and Hochberg, 1995).
    """
    from scipy.stats import false_discovery_control

    names = np.unique(classes)
    compared = [
        compare_hits(before[classes == name], after[classes == name])
        for name in names
    ]
    adjusted = false_discovery_control([recall.p_value for recall in compared])
    yield from zip(map(str, names), compared, map(float, adjusted), strict=True)


def main(rev: str, other: str | None, model: str, json_output: bool) -> None:
    """Says whether a run is better than another, worse, or within noise.

    Args:
        rev: the earlier run, a Git revision or a DVC experiment.
        other: the later one; None: the workspace's.
        model: which of each run's models.
        json_output: for programs.

    Raises:
        InputError: where one of the two has no predictions, or they have no
            test image in common.
    """
    images_after, hits_after = read_run(other, model)
    images_before, hits_before = read_run(rev, model)
    shared = match_images(images_before, images_after)
    name = other or "this run"
    counts = f"{name} has {len(images_after)}, {rev} {len(images_before)}"
    change = shared.describe_change()
    if not len(shared.classes):
        raise InputError(
            f"no test image is in both under one label: {counts}; {change}"
        )
    before, after = hits_before[shared.before], hits_after[shared.after]
    overall = compare_hits(before, after)
    classes = list(compare_classes(shared.classes, before, after))
    if json_output:
        record = {
            "model": model,
            "rev": rev,
            "other": other,
            "images_before": len(images_before),
            "images_after": len(images_after),
            "relabelled": shared.relabelled,
            "alone": shared.alone,
            **make_record(overall),
            "classes": {
                label: make_record(recall, p_value)
                for label, recall, p_value in classes
            },
        }
        print(json.dumps(record, indent=2, ensure_ascii=False))
        return
    if len(images_after) == len(images_before) == overall.n:
        which = f"the same {overall.n} test images"
    else:
        which = f"the {overall.n} test images of both ({counts})"
    say(f"{model}, {name} against {rev}, on {which}")
    say(*filter(None, [change]), "")
    say_scores(overall)
    say_classes(classes)


def make_record(comparison: Comparison, p_value: float | None = None) -> dict:
    """The object that JSON output has for a comparison.

    Args:
        comparison: of two runs.
        p_value: the adjusted one; None: the comparison's own.
    """
    return asdict(comparison) | {
        "before": comparison.before / comparison.n,
        "after": comparison.after / comparison.n,
        "difference": comparison.difference,
        "p_value": comparison.p_value if p_value is None else p_value,
        "verdict": comparison.judge(p_value),
    }


def say_scores(overall: Comparison) -> None:
    say(
        f"accuracy {overall.before / overall.n:.4f} -> "
        f"{overall.after / overall.n:.4f}: {overall.judge()}",
        f"difference {overall.difference:+.4f}, 99 % interval "
        f"{overall.low:+.4f} to {overall.high:+.4f}",
        f"{format_count(overall.gained, 'image')} right only after, "
        f"{overall.lost} only before; exact McNemar p "
        f"{overall.p_value:.2g}",
        "",
    )


def say_classes(classes: list[tuple[str, Comparison, float]]) -> None:
    width = max(len("class"), *(len(name) for name, *_ in classes))
    say(
        f"{'class':{width}}  images  recall before   after  difference  "
        "adjusted p  verdict"
    )
    for name, recall, p_value in classes:
        n = recall.n
        say(
            f"{name:{width}}  {n:6}  {recall.before / n:13.3f}  "
            f"{recall.after / n:6.3f}  {recall.difference:+10.3f}  "
            f"{p_value:10.2g}  {recall.judge(p_value)}"
        )
