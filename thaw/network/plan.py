"""The thaw plan: which blocks train, and where the frozen part ends."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from thaw.files.text import read_json, write_json
from thaw.network.backend import keras
from thaw.run.efficientnet import IMAGE, POOLED

# Where finetune's inputs come from. Cached activations save running the prefix
# in every epoch. Beyond half of the blocks they are so large, and the prefix is
# so short, that running it is cheaper (measured on B0: 8 of 16 blocks).
POOLED_FEATURES = "features"  # no block thawed: data/features has them
TAP = "tap"  # the cut is the tap: data/features has it
CACHED = "cached"  # data/activations
STREAMED = "streamed"  # nothing kept: images run through the prefix

# A block is thawed as a whole, because a shortcut spans one MBConv block:
# block2b_add adds the block's input to its output.
BLOCK = re.compile(r"(block\d+[a-z]+)_")

FROZEN_ALWAYS = (keras.layers.BatchNormalization, keras.layers.Normalization)


@dataclass(frozen=True)
class Plan:
    """What `finetune.blocks` comes to for one backbone.

    Attributes:
        blocks: thawed MBConv blocks, in the network's order.
        layers: layers that train, BatchNormalization never among them.
        cut: the layer whose output is the frozen prefix's; "image" where
            nothing is frozen.
        cut_shape: of one activation there.
        activations: where they come from, one of the constants above.
        trainable_parameters, frozen_parameters: of the backbone.
    """

    backbone: str
    blocks: list[str]
    layers: list[str]
    cut: str
    cut_shape: list[int]
    activations: str
    trainable_parameters: int
    frozen_parameters: int

    def write(self, path: str | Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> "Plan":
        return cls(**read_json(path))

    def describe(self) -> list[str]:
        total = self.trainable_parameters + self.frozen_parameters
        names = ", ".join(self.blocks) if self.blocks else "the head alone"
        shape = " x ".join(map(str, self.cut_shape))
        return [
            f"thawed: {names}",
            f"trainable: {self.trainable_parameters:,} of {total:,} parameters "
            f"of {self.backbone}, in {len(self.layers)} layers",
            f"cut: behind {self.cut}, {shape}, {self.activations}",
        ]


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
