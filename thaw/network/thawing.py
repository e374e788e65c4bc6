"""Blocks of a backbone, and what thaws them."""

import re

from thaw.network.backend import keras
from thaw.network.plan import Architecture, Part, Plan

# A block is thawed as a whole, because a shortcut spans one MBConv block:
# block2b_add adds the block's input to its output.
BLOCK = re.compile(r"(block\d+[a-z]+)_")

STEM, TOP = "stem", "top"  # what comes before the blocks, and behind them

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


def describe_backbone(backbone: keras.Model) -> Architecture:
    """What plans need to know of a backbone from `build_backbone`."""
    names = [STEM, *list_blocks(backbone), TOP]
    parts: dict[str, list[keras.Layer]] = {name: [] for name in names}
    part = STEM
    for layer in backbone.layers:
        if block := name_block(layer):
            part = block
        elif part != STEM:
            part = TOP
        parts[part].append(layer)
    return Architecture(
        name=backbone.name,
        image_size=backbone.input_shape[1],
        parameters=backbone.count_params(),
        parts=[
            Part(
                name,
                layers[-1].name,
                list(layers[-1].output.shape[1:]),
                {x.name: x.count_params() for x in layers if can_train(x)},
            )
            for name, layers in parts.items()
        ],
        tap=find_tap(backbone),
    )


def can_train(layer: keras.Layer) -> bool:
    return bool(layer.weights) and not isinstance(layer, FROZEN_ALWAYS)


def make_plan(backbone: keras.Model, blocks: int | str, tap_kept: bool) -> Plan:
    """As `Architecture.make_plan`, of a backbone from `build_backbone`."""
    return describe_backbone(backbone).make_plan(blocks, tap_kept)


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
