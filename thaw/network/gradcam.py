"""Where in an image the network sees the class that it predicts.

Grad-CAM: Selvaraju et al., arXiv:1610.02391.
"""

import math

import numpy as np

from thaw.data.efficientnet import LOGITS
from thaw.network.backend import keras

TOP = "top_activation"  # the last convolution's, in every variant

HEAT = "heat"


def add_heat(model: keras.Model) -> keras.Model:
    """The model with a second output: Grad-CAM of each image's likeliest class.

    Args:
        model: from `join_head`.

    Returns:
        Images (n, H, W, 3) to probabilities (n, classes), and heat (n, h, w) in
        [0, 1], a value for each position of the last convolution; all 0 if no
        position supports the class.
    """
    ops = keras.ops
    activations, probabilities = model.get_layer(TOP).output, model.output
    gradients = get_gradients(model) / math.prod(activations.shape[1:3])
    # OpenVINO does not convert Keras's argmax.
    _, likeliest = ops.top_k(probabilities, 1)
    own = ops.take(gradients.T, likeliest[:, 0], axis=0)
    heat = ops.relu(ops.einsum("nhwc,nc->nhw", activations, own))
    most = ops.max(heat, axis=(1, 2), keepdims=True)
    heat = heat / ops.where(most > 0, most, 1.0)
    heat = keras.layers.Identity(name=HEAT)(heat)
    return keras.Model(model.input, [probabilities, heat])


def get_gradients(model: keras.Model) -> np.ndarray:
    """Of each logit by each pooled feature: (features, classes).

    Behind the last convolution there are only average pooling and an affine
    head. The gradient by an activation is thus the same at every position of
    every image: this one, divided by the number of positions.
    """
    normalization = model.get_layer("head_bn")
    gamma, _, _, variance = normalization.get_weights()
    weights = model.get_layer(LOGITS).get_weights()[0]
    scale = gamma / np.sqrt(variance + normalization.epsilon)
    return scale[:, None] * weights
