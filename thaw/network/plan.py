"""The thaw plan: which blocks train, and where the frozen part ends.

It is made and read without Keras; thawing.py describes a backbone, and applies
a plan to it.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from thaw.data.efficientnet import IMAGE, POOLED
from thaw.files.text import read_json, write_json

# Where finetune's inputs come from. Cached activations save running the prefix
# in every epoch. Behind the first blocks they are larger than the packed image,
# and the prefix is so short that running it saves nothing.
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
        pooled: columns of the pooled outputs that come from before the cut.
    """

    backbone: str
    blocks: list[str]
    layers: list[str]
    cut: str
    cut_shape: list[int]
    activations: str
    trainable_parameters: int
    frozen_parameters: int
    pooled: int

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


@dataclass(frozen=True)
class Part:
    """What a backbone is made of: its stem, an MBConv block, or its top.

    Attributes:
        name: "stem", "block1a" and so on, "top".
        output: name of the layer that ends it.
        shape: of that layer's output, without the batch.
        layers: name of each layer that can train, to its parameters.
    """

    name: str
    output: str
    shape: list[int]
    layers: dict[str, int]


@dataclass(frozen=True)
class Architecture:
    """A backbone, as plans need it.

    Attributes:
        name: of the backbone.
        image_size: pixels a side.
        parameters: of all layers.
        parts: in the network's order: the stem, the blocks, the top.
        tap: name of the layer that ends the first block after the last stride.
    """

    name: str
    image_size: int
    parameters: int
    parts: list[Part]
    tap: str

    @property
    def blocks(self) -> list[str]:
        """Names of the MBConv blocks in the network's order: block1a, ..."""
        return [part.name for part in self.parts[1:-1]]

    @property
    def outputs(self) -> list[str]:
        """Of each part, the layer that ends it, and `POOLED` behind all."""
        return [*(part.output for part in self.parts), POOLED]

    @property
    def widths(self) -> list[int]:
        """Columns of the pooled outputs: of each block, and of the top, the
        means of its channels, then their deviations."""
        return [part.shape[-1] for part in self.parts[1:] for _ in range(2)]

    @property
    def last(self) -> slice:
        """The columns that are `LAST`."""
        width, end = self.widths[-1], sum(self.widths)
        return slice(end - 2 * width, end - width)

    def pick_columns(self, features: str) -> tuple[slice, list[int]]:
        """Columns of the pooled outputs, and how many each part of them has.

        Args:
            features: "all" or "last", as in the section `head`.
        """
        if features == "last":
            return self.last, self.widths[-1:]
        return slice(0, sum(self.widths)), self.widths

    def count_pooled(self, cut: str) -> int:
        """Columns of the pooled outputs that come from before a layer."""
        if cut == IMAGE:
            return 0
        before = self.outputs.index(cut)  # of parts; the stem has no columns
        return sum(self.widths[: 2 * before])

    def is_behind(self, layer: str, other: str) -> bool:
        """Whether of two ends of parts one comes after the other."""
        return self.outputs.index(layer) > self.outputs.index(other)

    def make_plan(self, blocks: int | str, tap_kept: bool) -> Plan:
        """Plans a thaw, counted from the top.

        Args:
            blocks: MBConv blocks to thaw, or "half" of them; with one or more
                the top convolution too, with "all" the stem as well, with 0
                nothing.
            tap_kept: whether data/features holds the activation at the tap.
        """
        stem, *middle, top = self.parts
        count = {"half": len(middle) // 2, "all": len(middle)}.get(
            str(blocks), blocks
        )
        assert isinstance(count, int)
        frozen, thawed = [stem, *middle][: -count or None], middle[-count:]
        if count == 0:
            thawed, trained = [], []
            cut, activations = POOLED, POOLED_FEATURES
            shape = [sum(self.widths)]
        elif blocks == "all":
            trained = self.parts
            shape = [self.image_size, self.image_size, 3]
            cut, activations = IMAGE, STREAMED
        else:
            trained = [*thawed, top]
            cut, shape = frozen[-1].output, frozen[-1].shape
            if tap_kept and cut == self.tap:
                activations = TAP
            elif 2 * math.prod(shape) < 3 * self.image_size**2:  # bytes
                activations = CACHED
            else:
                activations = STREAMED
        layers = {
            name: n for part in trained for name, n in part.layers.items()
        }
        trainable = sum(layers.values())
        return Plan(
            backbone=self.name,
            blocks=[part.name for part in thawed],
            layers=list(layers),
            cut=cut,
            cut_shape=shape,
            activations=activations,
            trainable_parameters=trainable,
            frozen_parameters=self.parameters - trainable,
            pooled=self.count_pooled(cut),
        )

    def write(self, path: str | Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> "Architecture":
        values = read_json(path)
        parts = [Part(**part) for part in values.pop("parts")]
        return cls(parts=parts, **values)
