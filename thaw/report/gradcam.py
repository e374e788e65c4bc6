"""Where in an image the network sees the class that it predicts.

Grad-CAM: Selvaraju et al., arXiv:1610.02391.
"""

import numpy as np
from PIL import Image

from thaw.frozen.network import freeze_model
from thaw.network.backend import keras
from thaw.network.parts import get_part
from thaw.run.efficientnet import IMAGE, LOGITS

TOP = "top_activation"  # the last convolution's, in every variant

STRIDE = 32  # pixels between its positions, in every variant

STRENGTH = 0.65  # of the colour where the heat is greatest


def count_positions(image_size: int) -> int:
    """Of the last convolution along a side of the image."""
    return -(-image_size // STRIDE)


def map_heat(
    model: keras.Model, images: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Grad-CAM of one class for each image.

    Args:
        model: from `join_head`.
        images: (n, H, W, 3) uint8.
        classes: (n,) int.

    Returns:
        (n, h, w) float32 in [0, 1], a value for each position of the last
        convolution; all 0 if no position supports the class.
    """
    network = freeze_model(get_part(model, IMAGE, TOP), "float32", "uint8")
    activations = np.empty((len(images), *network.outputs[0]), np.float32)
    network.run(
        lambda start, stop: images[start:stop], len(images), [activations]
    )
    gradients = get_gradients(model)[:, classes] / np.prod(
        activations.shape[1:3]
    )
    heat = np.einsum("nhwc,cn->nhw", activations, gradients)
    heat = np.maximum(heat, 0)
    most = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(most > 0, most, 1)


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


def paint_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays heat over a grey image: violet, red, orange, yellow.

    Args:
        image: (H, W, 3) uint8.
        heat: (h, w) in [0, 1], bilinearly upsampled to the image.

    Returns:
        (H, W, 3) uint8.
    """
    from matplotlib import colormaps

    height, width = image.shape[:2]
    heat = np.asarray(
        Image.fromarray(heat.astype(np.float32)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
    )
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    colors = colormaps["inferno"](heat)[..., :3] * 255
    strength = STRENGTH * np.sqrt(heat)[..., None]
    mixed = (1 - strength) * grey + strength * colors
    return mixed.round().astype(np.uint8)
