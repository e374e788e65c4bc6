"""What the thawed part is fed with, kept or made on the way."""

from pathlib import Path

import numpy as np

from thaw.data.activations import Features, gather_kept
from thaw.data.dataset import Dataset, Gather
from thaw.data.views import gather_views
from thaw.frozen.network import FrozenNetwork
from thaw.frozen.passes import get_precision
from thaw.network.backend import keras
from thaw.network.parts import get_part
from thaw.network.plan import CACHED, POOLED_FEATURES, TAP, Plan
from thaw.run.efficientnet import IMAGE


def open_inputs(
    plan: Plan,
    backbone: keras.Model,
    dataset: Dataset,
    features: Features,
    activations: str | Path,
    views: int,
    augment: dict,
) -> dict[str, Gather]:
    """Opens the activations at the cut, from where the plan has them.

    Returns:
        For train and validation, what gathers activations.
    """
    splits = ("train", "validation")
    if plan.activations in (POOLED_FEATURES, TAP):
        return {s: features.gather(plan.cut, s, views) for s in splits}
    if plan.activations == CACHED:
        return {s: gather_kept(activations, plan.cut, s, views) for s in splits}
    images = {s: gather_views(dataset, s, augment) for s in splits}
    if plan.cut == IMAGE:
        return images
    prefix = FrozenNetwork(
        get_part(backbone, IMAGE, plan.cut), features.wanted_precision, "uint8"
    )

    def stream(split: str) -> Gather:
        gather, precision = images[split], get_precision(prefix, split)

        def run(rows: np.ndarray, views: np.ndarray) -> np.ndarray:
            out = np.empty((len(rows), *plan.cut_shape), np.float32)
            prefix.run(
                lambda start, stop: gather(rows[start:stop], views[start:stop]),
                len(rows),
                [out],
                precision=precision,
            )
            return out

        return run

    return {split: stream(split) for split in splits}
