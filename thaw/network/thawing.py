"""Blocks of a backbone, and what thaws them.

A plan is made from the backbone, and applied to it.
"""

import re

from thaw.network.backend import keras
from thaw.network.plan import (
    CACHED,
    POOLED_FEATURES,
    STREAMED,
    TAP,
    Plan,
)
from thaw.run.efficientnet import IMAGE, POOLED

# A block is thawed as a whole, because a shortcut spans one MBConv block:
# block2b_add adds the block's input to its output.
BLOCK = re.compile(r"(block\d+[a-z]+)_")

FROZEN_ALWAYS = (keras.layers.BatchNormalization, keras.layers.Normalization)


def name_block(layer: keras.Layer) -> str | None:
    """The MBConv block that a layer belongs to; None for stem and top."""
    match = BLOCK.match(layer.name)
    return match and match[1]


def list_blocks(backbone: keras.Model) -> list[str]:
    """Names of the MBConv blocks in the network's order: block1a, ..."""
    blocks = dict.fromkeys(map(name_block, backbone.layers))
    return [block for block in blocks if block]


def find_output(backbone: keras.Model, block: str) -> str:
    """Name of the layer that ends a block."""
    ends = [x.name for x in backbone.layers if x.name.startswith(f"{block}_")]
    return ends[-1]


def find_tap(backbone: keras.Model) -> str:
    """Name of the layer that ends the first block after the last stride."""
    strided = [
        block
        for layer in backbone.layers
        if getattr(layer, "strides", 1) == (2, 2)
        and (block := name_block(layer))
    ]
    return find_output(backbone, strided[-1])


def make_plan(backbone: keras.Model, blocks: int | str, tap_kept: bool) -> Plan:
    """Plans a thaw, counted from the top.

    Args:
        backbone: from `build_backbone`.
        blocks: MBConv blocks to thaw; with one or more the top convolution
            too, with "all" the stem as well, with 0 nothing.
        tap_kept: whether data/features holds the activation at the tap.
    """
    names = list_blocks(backbone)
    count = blocks if isinstance(blocks, int) else len(names)
    first = len(names) - count
    thawed = names[first:]
    if count == 0:
        cut, activations = POOLED, POOLED_FEATURES
    elif blocks == "all":
        cut, activations = IMAGE, STREAMED
    elif first == 0:
        cut, activations = "stem_activation", STREAMED
    else:
        cut = find_output(backbone, names[first - 1])
        if tap_kept and cut == find_tap(backbone):
            activations = TAP
        else:
            activations = CACHED if 2 * count <= len(names) else STREAMED
    layers = [
        layer
        for layer in backbone.layers
        if layer.weights
        and is_thawed(layer, thawed, stem=blocks == "all")
        and not isinstance(layer, FROZEN_ALWAYS)
    ]
    total = backbone.count_params()
    trainable = sum(layer.count_params() for layer in layers)
    return Plan(
        backbone=backbone.name,
        blocks=thawed,
        layers=[layer.name for layer in layers],
        cut=cut,
        cut_shape=list(backbone.get_layer(cut).output.shape[1:]),
        activations=activations,
        trainable_parameters=trainable,
        frozen_parameters=total - trainable,
    )


def is_thawed(layer: keras.Layer, blocks: list[str], stem: bool) -> bool:
    match = BLOCK.match(layer.name)
    if match:
        return match[1] in blocks
    if layer.name.startswith("top_"):
        return bool(blocks)
    return stem


def apply_plan(
    backbone: keras.Model, plan: Plan, drop_connect_rate: float
) -> None:
    """Freezes and thaws the layers, before the model is compiled.

    A model trains a layer only if both are trainable, hence the first line.
    Drop layers ignore `trainable`: in frozen blocks their rate is 0; in thawed
    ones it grows with depth, as in the EfficientNet paper (arXiv:1905.11946).
    """
    backbone.trainable = True
    thawed = set(plan.layers)
    names = list_blocks(backbone)
    for layer in backbone.layers:
        layer.trainable = layer.name in thawed
        if isinstance(layer, keras.layers.Dropout):
            block = name_block(layer)
            thaws = block in plan.blocks
            share = names.index(block) / len(names) if block and thaws else 0.0
            layer.rate = drop_connect_rate * share


def is_behind(backbone: keras.Model, layer: str, other: str) -> bool:
    """Whether a layer comes after another one in the network."""
    names = [x.name for x in backbone.layers]
    return names.index(layer) > names.index(other)
