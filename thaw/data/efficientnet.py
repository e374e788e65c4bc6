"""The EfficientNets of keras.applications, without importing Keras."""

import os
from pathlib import Path
from typing import NamedTuple


class Variant(NamedTuple):
    image_size: int  # pixels a side that the ImageNet weights were trained on
    blocks: int  # MBConv blocks


VARIANTS = {
    "EfficientNetB0": Variant(224, 16),
    "EfficientNetB1": Variant(240, 23),
    "EfficientNetB2": Variant(260, 23),
    "EfficientNetB3": Variant(300, 26),
    "EfficientNetB4": Variant(380, 32),
    "EfficientNetB5": Variant(456, 39),
    "EfficientNetB6": Variant(528, 45),
    "EfficientNetB7": Variant(600, 55),
    "EfficientNetV2B0": Variant(224, 21),
    "EfficientNetV2B1": Variant(240, 27),
    "EfficientNetV2B2": Variant(260, 28),
    "EfficientNetV2B3": Variant(300, 32),
    "EfficientNetV2S": Variant(384, 40),
    "EfficientNetV2M": Variant(480, 57),
    "EfficientNetV2L": Variant(480, 79),
}


def get_weights_url(name: str) -> str:
    """Where Keras downloads the ImageNet weights without the top from."""
    base = "https://storage.googleapis.com/"
    if name.startswith("EfficientNetV2"):
        variant = name.removeprefix("EfficientNetV2").lower()
        folder = "tensorflow/keras-applications/efficientnet_v2/"
        return f"{base}{folder}efficientnetv2-{variant}_notop.h5"
    return f"{base}keras-applications/{name.lower()}_notop.h5"


def find_keras_home() -> Path:
    """The folder of Keras's settings and downloads, as Keras finds it."""
    home = os.environ.get("KERAS_HOME")
    if home is None:
        base = Path("~").expanduser()
        home = f"{base if os.access(base, os.W_OK) else '/tmp'}/.keras"
    return Path(home).expanduser()


def get_image_size(name: str, image_size: int | None) -> int:
    """Pixels a side of prepared images: the backbone's own, unless said."""
    return image_size or VARIANTS[name].image_size


IMAGE = "image"  # the input of a backbone
POOLED = "pooled"  # what all of its blocks say of an image: the input of a head
LAST = "avg_pool"  # what its last layer says alone
LOGITS = "logits"  # a head's output before softmax
