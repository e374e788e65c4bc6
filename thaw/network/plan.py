"""The thaw plan: which blocks train, and where the frozen part ends.

It is read without Keras; thawing.py makes and applies it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from thaw.files.text import read_json, write_json

# Where finetune's inputs come from. Cached activations save running the prefix
# in every epoch. Beyond half of the blocks they are so large, and the prefix is
# so short, that running it is cheaper (measured on B0: 8 of 16 blocks).
POOLED_FEATURES = "features"  # no block thawed: data/features has them
TAP = "tap"  # the cut is the tap: data/features has it
CACHED = "cached"  # data/activations
STREAMED = "streamed"  # nothing kept: images run through the prefix


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
