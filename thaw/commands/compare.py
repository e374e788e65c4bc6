"""Two runs, of Git revisions or DVC experiments, compared image by image."""

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
from thaw.run.console import format_count, say

PREDICTIONS = "metrics/predictions.csv"


@contextmanager
def open_at(path: str, rev: str) -> Iterator[TextIO]:
    """A file that DVC keeps, as it was at a revision or an experiment.

    Raises:
        InputError: where there is no such revision, or it has no such file,
            or DVC's cache has not got it.
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
    """What `read_hits` says of a run.

    Args:
        rev: a Git revision or a DVC experiment; None: the workspace.
        model: one of the run's.

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
    """The test images that two runs have, under the same label.

    Attributes:
        classes: (n,) str, of each.
        before, after: (n,) int, where they stand in each run.
        relabelled: how many more both have, under other labels.
    """

    classes: np.ndarray
    before: np.ndarray
    after: np.ndarray
    relabelled: int


def match_images(
    before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> Shared:
    """Finds each image of one run in another.

    A picture that a test set holds several times counts as often as both do.

    Args:
        before, after: id and class of every image.
    """
    one, other = number_copies(before), number_copies(after)
    shared = sorted(one.keys() & other.keys())
    # What one has and the other has not may be there under another label.
    left = {identity for identity, *_ in one.keys() - other.keys()}
    right = {identity for identity, *_ in other.keys() - one.keys()}
    return Shared(
        classes=np.array([name for _, name, _ in shared], str),
        before=np.array([one[key] for key in shared], int),
        after=np.array([other[key] for key in shared], int),
        relabelled=len(left & right),
    )


def number_copies(
    images: list[tuple[str, str]],
) -> dict[tuple[str, str, int], int]:
    """Where each image stands, by id, class and how many alike came before."""
    seen, places = Counter(), {}
    for place, image in enumerate(images):
        places[*image, seen[image]] = place
        seen[image] += 1
    return places


def compare_classes(
    classes: np.ndarray, before: np.ndarray, after: np.ndarray
) -> Iterator[tuple[str, Comparison, float]]:
    """The recall of each class, compared.

    Args:
        classes: (n,) str, of each image.
        before, after: (n,) bool, hits.

    Yields:
        The class, its comparison, and its p value adjusted for the number of
        classes (Benjamini and Hochberg, 1995).
    """
    from scipy.stats import false_discovery_control

    names = np.unique(classes)
    found = [
        compare_hits(before[classes == name], after[classes == name])
        for name in names
    ]
    adjusted = false_discovery_control([one.p_value for one in found])
    yield from zip(map(str, names), found, map(float, adjusted), strict=True)


def describe(comparison: Comparison, p_value: float | None = None) -> dict:
    """For JSON."""
    return asdict(comparison) | {
        "before": comparison.before / comparison.n,
        "after": comparison.after / comparison.n,
        "difference": comparison.difference,
        "p_value": comparison.p_value if p_value is None else p_value,
        "verdict": comparison.judge(p_value),
    }


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
    images, after = read_run(other, model)
    others, before = read_run(rev, model)
    shared = match_images(others, images)
    name = other or "this run"
    counts = f"{name} has {len(images)}, {rev} {len(others)}"
    if shared.relabelled:
        counts += f"; {shared.relabelled} more under other labels"
    if not len(shared.classes):
        raise InputError(f"no test image is in both: {counts}")
    before, after = before[shared.before], after[shared.after]
    overall = compare_hits(before, after)
    each = list(compare_classes(shared.classes, before, after))
    if json_output:
        about = {
            "model": model,
            "rev": rev,
            "other": other,
            "images_before": len(others),
            "images_after": len(images),
            "relabelled": shared.relabelled,
            **describe(overall),
            "classes": {name: describe(one, p) for name, one, p in each},
        }
        print(json.dumps(about, indent=2, ensure_ascii=False))
        return
    if len(images) == len(others) == overall.n:
        which = f"the same {overall.n} test images"
    else:
        which = f"the {overall.n} test images of both ({counts})"
    say(f"{model}, {name} against {rev}, on {which}", "")
    say_scores(overall)
    say_classes(each)


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


def say_classes(each: list[tuple[str, Comparison, float]]) -> None:
    width = max(len("class"), *(len(name) for name, *_ in each))
    say(
        f"{'class':{width}}  images  recall before   after  difference  "
        "adjusted p  verdict"
    )
    for name, one, p_value in each:
        say(
            f"{name:{width}}  {one.n:6}  {one.before / one.n:13.3f}  "
            f"{one.after / one.n:6.3f}  {one.difference:+10.3f}  "
            f"{p_value:10.2g}  {one.judge(p_value)}"
        )
