"""The network that exports contain, and the steps that several of them share.

Exports crop, resize and calibrate inside the graph. TensorFlow traces the
graph for every format but Keras's own.
"""

from collections.abc import Callable

import numpy as np

from thaw.data.efficientnet import IMAGE, LOGITS
from thaw.export.contract import INPUT, OUTPUT
from thaw.network.backend import keras
from thaw.network.model_info import ModelInfo
from thaw.network.parts import get_part


def scale_logits(model: keras.Model, info: ModelInfo) -> keras.Model:
    """Copies a model with calibrated probabilities; it shares the weights.

    A Rescaling replaces each Normalization, which computes the same: ONNX's
    converter makes inputs of Normalization's constants.

    Args:
        model: as in models/finetuned.keras.
        info: what travels with it.

    Returns:
        Images (n, image_size, image_size, 3) to probabilities (n, classes).
    """

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.layers.Normalization):
            stddev = np.sqrt(np.ravel(layer.variance))
            stddev = np.maximum(stddev, keras.config.epsilon())
            layer = keras.layers.Rescaling(
                (1 / stddev).tolist(),
                (-np.ravel(layer.mean) / stddev).tolist(),
                name=layer.name,
            )
        return layer(*args, **kwargs)

    copy = keras.models.clone_model(
        get_part(model, IMAGE, LOGITS),
        call_function=call,
        clone_function=lambda layer: layer,
    )
    (x,) = copy.outputs
    x = keras.layers.Rescaling(1 / info.temperature, name="temperature")(x)
    x = keras.layers.Softmax(name=OUTPUT)(x)
    return keras.Model(copy.inputs[0], x, name="network")


def crop_images(images, info: ModelInfo):
    """Cuts a TensorFlow batch to its middle square where fit is "crop".

    Keras's own crop divides floats. TensorFlow and LiteRT may multiply by the
    reciprocal instead, which loses a pixel at some sizes.
    """
    import tensorflow

    if info.fit != "crop":
        return images
    sides = tensorflow.shape(images)[1:3]
    side = tensorflow.reduce_min(sides)
    top, left = tensorflow.unstack((sides - side) // 2)
    return images[:, top : top + side, left : left + side]


def make_resizing(
    info: ModelInfo, antialias: bool, scale: int = 1
) -> keras.layers.Resizing:
    """A layer that resizes images to `scale` times the model's size.

    Args:
        info: what travels with the model.
        antialias: whether the layer averages over the pixels that it leaves
            out, as `thaw.data.images.resize_image` does; not every runtime
            can.
        scale: of the model's size.
    """
    side = info.image_size * scale
    return keras.layers.Resizing(side, side, antialias=antialias)


def trace_classifier(model: keras.Model, info: ModelInfo, antialias: bool):
    """A TensorFlow function from images of any size to probabilities."""
    network = scale_logits(model, info)
    resize = make_resizing(info, antialias)
    return trace_prediction(
        lambda x: network(resize(crop_images(x, info)), training=False)
    )


def trace_prediction(
    predict: Callable, side: int | None = None, batch_size: int | None = None
):
    """A TensorFlow function of images (batch_size, side, side, 3) uint8.

    Args:
        predict: maps such images in float32 to probabilities.
        side, batch_size: None for any.
    """
    import tensorflow

    signature = tensorflow.TensorSpec(
        (batch_size, side, side, 3), "uint8", name=INPUT
    )

    @tensorflow.function(input_signature=[signature])
    def run(images):
        images = tensorflow.cast(images, "float32")
        return {OUTPUT: predict(images)}

    return run


def hold_variables(model: keras.Model):
    """A TensorFlow module that holds a model's variables, each once.

    Keras's own export holds each twice, and LiteRT's converter finds none in
    a Keras model.
    """
    import tensorflow

    module = tensorflow.Module()
    module.kept = [variable.value for variable in model.variables]
    return module
