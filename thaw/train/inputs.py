"""What the thawed part is fed with: activations, kept or computed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from thaw.data.activations import Features, gather_kept
from thaw.data.dataset import Dataset, Gather, GatherAll
from thaw.data.efficientnet import IMAGE, POOLED
from thaw.data.splits import TRAINED
from thaw.data.views import gather_views
from thaw.frozen.backbone import take_frozen
from thaw.frozen.network import FrozenNetwork
from thaw.network.plan import CACHED, POOLED_FEATURES, TAP, Plan


def open_inputs(
    plan: Plan,
    dataset: Dataset,
    features: Features,
    activations: str | Path,
    views: int,
    augment: dict,
    columns: slice,
) -> Mapping[str, GatherAll]:
    """Opens what the thawed part takes, from where the plan has it.

    Args:
        plan: says where the activations at its cut come from.
        dataset: the images.
        features: data/features; the backbone there computes activations that
            are not kept.
        activations: the folder data/activations.
        views: of each training image.
        augment: the keywords of `augment_images`.
        columns: of the pooled outputs, that the head takes.

    Returns:
        For train and validation, what gathers activations at the cut and, if
        the head takes any from before it, pooled outputs.
    """
    if plan.activations == POOLED_FEATURES:
        return {s: features.gather(POOLED, s, views, columns) for s in TRAINED}
    front = range(plan.pooled)[columns]
    behind = open_cut(plan, dataset, features, activations, views, augment)
    if not front:
        return behind
    kept = slice(front.start, front.stop)
    return {
        s: pair(behind[s], features.gather(POOLED, s, views, kept))
        for s in TRAINED
    }


def pair(first: Gather, second: Gather) -> GatherAll:
    """What gathers both."""
    return lambda rows, view_numbers: (
        first(rows, view_numbers),
        second(rows, view_numbers),
    )


def open_cut(
    plan: Plan,
    dataset: Dataset,
    features: Features,
    activations: str | Path,
    views: int,
    augment: dict,
) -> Mapping[str, Gather]:
    """Opens the activations at the cut; arguments of `open_inputs`."""
    if plan.activations == TAP:
        return {s: features.gather(plan.cut, s, views) for s in TRAINED}
    if plan.activations == CACHED:
        return {
            s: gather_kept(activations, plan.cut, s, views) for s in TRAINED
        }
    images = {s: gather_views(dataset, s, augment) for s in TRAINED}
    if plan.cut == IMAGE:
        return images
    prefix = take_frozen(features, IMAGE, plan.cut)
    return {
        s: stream(prefix, images[s], prefix.get_precision(s)) for s in TRAINED
    }


def stream(network: FrozenNetwork, images: Gather, precision: str) -> Gather:
    """What gathers a network's only output, computed from views of images."""

    def gather(rows: np.ndarray, view_numbers: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *network.outputs[0]), np.float32)
        network.run(
            lambda start, stop: images(
                rows[start:stop], view_numbers[start:stop]
            ),
            len(rows),
            [out],
            precision=precision,
        )
        return out

    return gather
