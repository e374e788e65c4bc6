"""What the thawed part is fed with, kept or made on the way."""

from functools import partial
from pathlib import Path

from thaw.activations import get_precision
from thaw.augmentation import gather_views
from thaw.backend import keras
from thaw.dataset import Dataset
from thaw.features import Features, Gather, gather_kept
from thaw.frozen import FrozenNetwork
from thaw.parts import IMAGE, get_part
from thaw.plan import CACHED, POOLED_FEATURES, TAP, Plan


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
        For train and validation, (rows, view) to activations.
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
        precision = get_precision(prefix, split)
        gather = images[split]
        predict = partial(prefix.predict, precision=precision)
        return lambda rows, view: predict(gather(rows, view))[0]

    return {split: stream(split) for split in splits}
