"""Pictures for `dvc plots`."""

import math
from pathlib import Path

import numpy as np

from thaw.data.dataset import Dataset, Gather
from thaw.files.atomic import new_file

EXAMPLES = 8
MOST_VIEWS = 6
PAIRS_A_LINE = 3


def draw_views(
    path: str | Path, dataset: Dataset, gather: Gather, views: int
) -> None:
    """Some training images, of as many classes as there is room, and their
    views: a row each."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    labels = dataset.open_labels("train")
    firsts = [np.flatnonzero(labels == k)[0] for k in np.unique(labels)]
    spread = np.linspace(0, len(firsts) - 1, min(EXAMPLES, len(firsts)))
    rows = np.array([firsts[i] for i in spread.round().astype(int)])
    shown = range(min(views, MOST_VIEWS))
    figure, axes = pyplot.subplots(
        len(shown),
        len(rows),
        figsize=(1.2 * len(rows) + 0.6, 1.2 * len(shown) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for view, line in zip(shown, axes, strict=True):
        line[0].set_ylabel(f"view {view}" if view else "the image")
        images = gather(rows, np.full(len(rows), view))
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
    for axis, row in zip(axes[0], rows, strict=True):
        axis.set_title(
            dataset.classes[labels[row]], fontsize="medium", parse_math=False
        )
    with new_file(path) as unfinished:
        figure.savefig(unfinished, dpi=100, format="png")
    pyplot.close(figure)


def draw_duplicates(path: str | Path, dataset: Dataset) -> None:
    """Pairs of copies in two splits or under two labels, side by side."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    pairs = list(dataset.read_duplicates())
    lines = max(1, math.ceil(len(pairs) / PAIRS_A_LINE))
    figure, axes = pyplot.subplots(
        lines,
        PAIRS_A_LINE,
        figsize=(3.6 * PAIRS_A_LINE, 2.1 * lines),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_axis_off()
    if not pairs:
        figure.suptitle("no copies in two splits or under two labels")
    for (about, (one, other)), axis in zip(pairs, axes.flat, strict=False):
        gap = np.full_like(one[:, : 1 + len(one) // 30], 255)
        axis.imshow(np.hstack([one, gap, other]))
        axis.set_title(
            f"{shorten(about['path'])}\n{shorten(about['other_path'])}\n"
            f"similarity {about['similarity']}, {about['decision']}",
            fontsize="x-small",
            parse_math=False,
        )
    with new_file(path) as unfinished:
        figure.savefig(unfinished, dpi=100, format="png")
    pyplot.close(figure)


def shorten(text: str, most: int = 50) -> str:
    """On one line, its end kept."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"…{text[1 - most :]}"
