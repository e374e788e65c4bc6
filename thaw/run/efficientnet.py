"""The EfficientNets of keras.applications, without importing Keras."""

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


IMAGE = "image"  # the input of a backbone
POOLED = "avg_pool"  # its output, and the input of a head
LOGITS = "logits"  # a head's output before softmax
