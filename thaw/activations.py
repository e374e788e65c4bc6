"""Frozen outputs on disk, written: data/features and data/activations."""

from pathlib import Path

import numpy as np

from thaw.console import progress, say
from thaw.errors import InputError
from thaw.features import Gather, get_path
from thaw.files import create_array
from thaw.frozen import FrozenNetwork


def list_views(views: int) -> list[tuple[str, int]]:
    """(split, view): all views of the training images, one of the others."""
    train = [("train", view) for view in range(views)]
    return [*train, ("validation", 0), ("test", 0)]


def get_precision(network: FrozenNetwork, split: str) -> str:
    """Scores are those of the shipped model, which runs in float32."""
    return network.precision if split == "train" else "float32"


class HalfArray:
    """Writes into a float16 array, watching its range."""

    def __init__(self, array: np.ndarray):
        self.array, self.overflowed = array, False

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            self.array[rows] = values
        if not np.isfinite(self.array[rows]).all():
            self.overflowed = True


def write_activations(
    network: FrozenNetwork,
    layers: dict[str, str],
    folder: Path,
    views: int,
    rows: dict[str, int],
    gather: dict[str, Gather],
    label: str,
) -> None:
    """Runs every split and view through the network, once.

    Args:
        network: one output for each layer.
        layers: layer name to "float16" or "float32", in the network's order.
            A layer that leaves float16's range is written in float32 instead,
            in a second pass.
        folder: where the layers' folders are made.
        views: of the training images.
        rows: images in each split.
        gather: for each split, (rows, view) to the network's inputs.
        label: of the progress bar.

    Raises:
        InputError: where an output is not finite.
    """
    for layer in layers:
        (folder / layer).mkdir(parents=True)
    total = sum(rows[split] for split, _ in list_views(views))
    dtypes = dict(layers)
    while True:
        overflowed = set()
        with progress(total, label, "images") as bar:
            for split, view in list_views(views):
                arrays = {
                    layer: create_array(
                        get_path(folder, layer, split, view),
                        (rows[split], *shape),
                        dtypes[layer],
                    )
                    for (layer, shape) in zip(
                        layers, network.outputs, strict=True
                    )
                }
                outs = {x: HalfArray(array) for x, array in arrays.items()}
                network.run(
                    lambda start, stop, split=split, view=view: gather[split](
                        np.arange(start, stop), view
                    ),
                    rows[split],
                    list(outs.values()),
                    bar.update,
                    get_precision(network, split),
                )
                overflowed |= {x for x, out in outs.items() if out.overflowed}
        if not overflowed:
            return
        if any(dtypes[layer] == "float32" for layer in overflowed):
            raise InputError(
                f"{', '.join(sorted(overflowed))} gives values that are not "
                "finite: the backbone's weights are broken"
            )
        say(f"{', '.join(sorted(overflowed))} leaves float16's range: float32")
        dtypes |= dict.fromkeys(overflowed, "float32")
