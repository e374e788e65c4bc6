"""Decoding and resizing: the one place where pictures become arrays."""

import io

import numpy as np
from PIL import Image, ImageOps


def decode_image(data: bytes) -> Image.Image:
    """The picture in a file's bytes: upright, RGB.

    Raises:
        Exception: whatever Pillow raises for bytes that are no whole picture.
    """
    with Image.open(io.BytesIO(data)) as image:
        return convert_image(ImageOps.exif_transpose(image))


def convert_image(image: Image.Image) -> Image.Image:
    """Any picture to RGB; Pillow itself clips 16 bits instead of scaling."""
    if image.mode.startswith("I"):
        high = np.asarray(image).astype(np.uint32) // 256
        image = Image.fromarray(high.clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def resize_image(image: Image.Image, image_size: int, fit: str) -> np.ndarray:
    """Antialiased bilinear resizing to a square.

    Args:
        image: an RGB picture of any size.
        image_size: pixels a side of the result.
        fit: "squash" changes the aspect ratio; "crop" keeps it and the middle.

    Returns:
        (image_size, image_size, 3) uint8, range [0, 255].
    """
    size = (image_size, image_size)
    if fit == "crop":
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    else:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)
