"""EfficientNet without its top: building, loading, and what it is made of."""

import math
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from thaw.data.efficientnet import IMAGE
from thaw.errors import InputError
from thaw.files.archives import check_archive
from thaw.network.backend import keras

# The ImageNet weights of V1 expect one more division: Keras's Normalization
# divides by the standard deviation, training divided by the variance:
# https://github.com/tensorflow/tensorflow/issues/49930
IMAGENET_STDDEV_RGB = (0.229, 0.224, 0.225)


def build_backbone(
    name: str, weights: str | None, file: str | Path, image_size: int
) -> keras.Model:
    """An EfficientNet of keras.applications, ending in average pooling.

    Args:
        name: a key of `VARIANTS`.
        weights: "imagenet", "file" or None for random ones, always the same.
        file: the weights, for "file": .h5, .weights.h5 or .keras of the same
            network without its top, as Keras publishes or writes them.
        image_size: pixels a side.

    Returns:
        A functional model from images (n, image_size, image_size, 3) in
        [0, 255] to features (n, channels), its normalisation inside.

    Raises:
        InputError: where the weights can't be had or are another network's.
    """
    # Where weights stay random, every stage draws the same.
    keras.utils.set_random_seed(0)
    make = getattr(keras.applications, name)
    image = keras.Input((image_size, image_size, 3), name=IMAGE)
    options = {"include_top": False, "input_tensor": image, "pooling": "avg"}
    if weights == "imagenet":
        try:
            backbone = make(weights="imagenet", **options)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"the ImageNet weights of {name} can't be had: {reason}"
            ) from error
    else:
        backbone = make(weights=None, **options)
        if weights == "file":
            load_weights(backbone, file)
            backbone = match_imagenet(backbone)
    name_layers(backbone)
    return backbone


def name_layers(backbone: keras.Model) -> None:
    """Keras numbers what it names itself by all that was built before."""
    seen: Counter[str] = Counter()
    for layer in backbone.layers:
        if isinstance(
            layer, (keras.layers.Rescaling, keras.layers.Normalization)
        ):
            kind = type(layer).__name__.lower()
            layer.name = f"{kind}_{seen[kind]}" if seen[kind] else kind
            seen[kind] += 1


def load_weights(backbone: keras.Model, file: str | Path) -> None:
    """Loads all weights from a file, or raises InputError in one line."""
    random = [kernel.numpy() for kernel in list_kernels(backbone)]
    problem = InputError(
        f"backbone.file is {file}: it holds no weights of {backbone.name} "
        "without its top"
    )
    try:
        check_archive(file)
        with warnings.catch_warnings():
            # Keras warns of its own private containers, which hold nothing.
            warnings.simplefilter("ignore")
            backbone.load_weights(file)
    except Exception as error:
        raise problem from error
    # Keras leaves as it is what a .weights.h5 does not mention.
    for before, after in zip(random, list_kernels(backbone), strict=True):
        if np.array_equal(before, after.numpy()):
            raise problem


def list_kernels(backbone: keras.Model) -> list[keras.Variable]:
    return [w for w in backbone.weights if w.name == "kernel"]


def match_imagenet(backbone: keras.Model) -> keras.Model:
    """Adds the division that Keras builds in only under weights="imagenet".

    Weights of V1 need it exactly when their Normalization holds a variance.
    V2 has its constants built in.
    """
    normalizations = [
        layer
        for layer in backbone.layers
        if isinstance(layer, keras.layers.Normalization) and layer.weights
    ]
    if not normalizations:
        return backbone
    (normalization,) = normalizations
    if np.all(normalization.adapt_variance.numpy() == 1):
        return backbone
    scale = [1.0 / math.sqrt(stddev) for stddev in IMAGENET_STDDEV_RGB]

    def call(layer, *args, **kwargs):
        result = layer(*args, **kwargs)
        if layer.name == normalization.name:
            result = keras.layers.Rescaling(scale)(result)
        return result

    scaled = keras.models.clone_model(backbone, call_function=call)
    scaled.set_weights(backbone.get_weights())
    scaled.get_layer(normalization.name).finalize_state()
    return scaled


def measure_drift(backbone: keras.Model, checkpoint: list[np.ndarray]) -> float:
    """The largest change of any BatchNormalization weight; 0 is right.

    Args:
        backbone: after training.
        checkpoint: its weights as loaded, from `get_weights`.
    """
    loaded = dict(
        zip((w.path for w in backbone.weights), checkpoint, strict=True)
    )
    return max(
        float(np.abs(weight.numpy() - loaded[weight.path]).max())
        for layer in backbone.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
    )
