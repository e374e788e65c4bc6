"""Where in an image the network sees the class that it predicts.

Grad-CAM: Selvaraju et al., arXiv:1610.02391.
"""

import numpy as np


def draw_heat(activations: np.ndarray, kernel: np.ndarray, classes: np.ndarray):
    """Grad-CAM of the last convolution, of one class for each image.

    Behind it there are pooling and an affine head. The gradient of a logit,
    averaged over the positions as Grad-CAM has it, is the weight of the
    channel's mean; that of its deviation averages to 0.

    Args:
        activations: (n, h, w, channels).
        kernel: (channels, classes), the head's weights of the means.
        classes: (n,) int.

    Returns:
        (n, h, w) in [0, 1], all 0 if no position supports the class.
    """
    heat = np.einsum("nhwc,nc->nhw", activations, kernel.T[classes])
    heat = np.maximum(heat, 0)
    most = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(most > 0, most, 1)
