"""The frozen backbone as `extract` keeps it: in its engine's own form.

The stages behind it take parts of it. They need neither Keras, which takes
seconds to import, nor the seconds of another conversion.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.data.activations import Features
from thaw.data.efficientnet import IMAGE
from thaw.frozen.engines import freeze_model, read_network
from thaw.frozen.network import FrozenNetwork
from thaw.network.plan import Architecture

if TYPE_CHECKING:
    from thaw.network.backend import keras

# In data/features.
NETWORK = "network"
ARCHITECTURE = "architecture.json"


def keep_backbone(
    backbone: "keras.Model", precision: str, folder: Path
) -> None:
    """Freezes a backbone: an output behind each part, and `POOLED`.

    Args:
        backbone: from `build_backbone`.
        precision: as in `freeze_model`.
        folder: gets `NETWORK` and `ARCHITECTURE`.

    Raises:
        InputError: where the precision can't be had.
    """
    from thaw.network.backend import keras
    from thaw.network.parts import get_part
    from thaw.network.pooling import pool_blocks
    from thaw.network.thawing import describe_backbone

    architecture = describe_backbone(backbone)
    pooled = keras.Model(backbone.input, pool_blocks(backbone))
    part = get_part(pooled, IMAGE, *architecture.outputs)
    network = freeze_model(part, precision, "uint8")
    (folder / NETWORK).mkdir()
    network.write(folder / NETWORK)
    architecture.write(folder / ARCHITECTURE)


def copy_backbone(source: Path, image_size: int, folder: Path) -> bool:
    """Copies what `keep_backbone` wrote, if it is for images of this size."""
    path = source / ARCHITECTURE
    if not path.exists() or Architecture.read(path).image_size != image_size:
        return False
    shutil.copyfile(path, folder / ARCHITECTURE)
    shutil.copytree(
        source / NETWORK, folder / NETWORK, copy_function=shutil.copyfile
    )
    return True


def read_architecture(folder: str | Path) -> Architecture:
    return Architecture.read(Path(folder, ARCHITECTURE))


def read_frozen(folder: str | Path) -> FrozenNetwork:
    """The backbone from `IMAGE`, an output behind each part of it."""
    return read_network(Path(folder, NETWORK))


def take_frozen(
    features: Features, start: str, *ends: str, dtype: str = "uint8"
) -> FrozenNetwork:
    """The part of the backbone from one layer to others.

    It runs in the precision of the features. Its engine may be without
    bfloat16: then it is in float32.
    """
    part = read_frozen(features.folder).take(start, *ends, dtype=dtype)
    return part.use_precision(features.wanted_precision)
