"""This run against another Git revision or DVC experiment, image by image."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import numpy as np

from thaw.comparison import Comparison, compare_hits
from thaw.console import say
from thaw.errors import InputError
from thaw.predictions import read_hits

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


def main(rev: str, model: str, json_output: bool) -> None:
    """Says whether this run is better, worse, or within noise.

    Raises:
        InputError: where one of the two has no predictions, or their test
            sets differ.
    """
    if not Path(PREDICTIONS).exists():
        raise InputError(f"{PREDICTIONS} is not there; `dvc repro` makes it")
    with Path(PREDICTIONS).open(encoding="utf-8", newline="") as file:
        images, after = read_hits(file, model)
    with open_at(PREDICTIONS, rev) as file:
        others, before = read_hits(file, model)
    if images != others:
        shared = len(set(images) & set(others))
        raise InputError(
            f"the test images differ: {len(images)} here, {len(others)} in "
            f"{rev}, {shared} of them the same with the same label"
        )
    overall = compare_hits(before, after)
    classes = np.array([name for _, name in images])
    each = list(compare_classes(classes, before, after))
    if json_output:
        about = {name: describe(one, p) for name, one, p in each}
        about = {
            "model": model,
            "rev": rev,
            **describe(overall),
            "classes": about,
        }
        print(json.dumps(about, indent=2, ensure_ascii=False))
        return
    say(
        f"{model}, this run against {rev}, on the same {overall.n} test images",
        "",
        f"accuracy {overall.before / overall.n:.4f} -> "
        f"{overall.after / overall.n:.4f}: {overall.judge()}",
        f"difference {overall.difference:+.4f}, 99 % interval "
        f"{overall.low:+.4f} to {overall.high:+.4f}; {overall.gained} images "
        f"right now, {overall.lost} no longer; exact McNemar p "
        f"{overall.p_value:.2g}",
        "",
    )
    width = max(len("class"), *(len(name) for name, *_ in each))
    say(
        f"{'class':{width}}  images  recall there    here  difference  "
        "adjusted p  verdict"
    )
    for name, one, p_value in each:
        say(
            f"{name:{width}}  {one.n:6}  {one.before / one.n:12.3f}  "
            f"{one.after / one.n:6.3f}  {one.difference:+10.3f}  "
            f"{p_value:10.2g}  {one.judge(p_value)}"
        )
