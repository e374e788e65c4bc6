"""Grad-CAM's heat, painted over its image."""

import numpy as np
from PIL import Image

STRENGTH = 0.65  # of the colour where the heat is greatest


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
