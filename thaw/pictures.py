"""Pictures for `dvc plots`."""

from pathlib import Path

import numpy as np

from thaw.activations import Gather
from thaw.dataset import Dataset
from thaw.files import new_file

EXAMPLES = 8
MOST_VIEWS = 6


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
