"""The frozen backbone as `extract` keeps it: in its engine's own form.

The stages behind it take parts of it. They need neither Keras, which takes
seconds to import, nor the seconds of another conversion.
"""

import shutil
from pathlib import Path

from thaw.data.activations import Features
from thaw.frozen.network import FrozenNetwork, freeze_model, read_network
from thaw.network.plan import Architecture
from thaw.run.efficientnet import IMAGE
from thaw.run.params import Params

# In data/features.
NETWORK = "network"
ARCHITECTURE = "architecture.json"


def keep_backbone(p: Params, image_size: int, folder: Path) -> None:
    """Freezes the backbone, with an output behind each of its parts.

    Args:
        p: the parameters.
        image_size: pixels a side.
        folder: gets `NETWORK` and `ARCHITECTURE`.

    Raises:
        InputError: where the weights or the precision can't be had.
    """
    from thaw.network.backbone import build_backbone
    from thaw.network.parts import get_part
    from thaw.network.thawing import describe_backbone

    backbone = build_backbone(**p.backbone.model_dump(), image_size=image_size)
    architecture = describe_backbone(backbone)
    part = get_part(backbone, IMAGE, *architecture.outputs)
    network = freeze_model(part, p.extract.precision, "uint8")
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
