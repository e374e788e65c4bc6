"""Decoding and resizing: the one place where pictures become arrays."""

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

# Pillow warns of large pictures and broken EXIF; both are read anyway.
warnings.filterwarnings("ignore", module="PIL")

# Pillow's own formats come first. Each thread decodes a picture of its own.
Image.init()
pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False)

# EPS is a program, which Pillow has Ghostscript run.
PILLOW_FORMATS = [name for name in Image.ID if name != "EPS"]

# Pillow knows these, and reads none of them.
STUBS = {"BUFR", "GRIB", "HDF5", "MPEG"}
SUFFIXES = {
    suffix
    for suffix, name in Image.registered_extensions().items()
    if name in Image.OPEN and name not in STUBS
}

PHOTOMETRIC = 262  # the tag of a TIFF; 0: white is zero


def decode_image(data: bytes) -> Image.Image:
    """The picture in a file's bytes: upright, RGB, the first of several.

    Raises:
        Exception: whatever Pillow raises for bytes that are no whole picture.
    """
    with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
        image.verify()  # checksums, where the format has them
    with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
        tags = getattr(image, "tag_v2", {})
        upright = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16") or image.format == "PPM":
            return convert_deep(upright, inverted=tags.get(PHOTOMETRIC) == 0)
        return convert_image(upright)


def is_image(path: str | Path) -> bool:
    """Whether a file is meant to be a picture, whole or not.

    Its suffix says so, or, where Pillow does not know that, its first bytes.
    """
    _, dot, suffix = str(path).rpartition(".")
    if (dot + suffix).lower() in SUFFIXES:
        return True
    with Path(path).open("rb") as file:
        head = file.read(16)  # as many as Pillow's formats ask for
    # Text may begin as a picture does, "BM" or "P1", but for these.
    if len(head) < 16 or not any(byte < 9 or 13 < byte < 32 for byte in head):
        return False
    accepting = [
        Image.OPEN[name][1] for name in PILLOW_FORMATS if name not in STUBS
    ]
    return any(accept(head) for accept in accepting if accept)


def describe_failure(error: Exception) -> str:
    """Why `decode_image` failed, on one line."""
    # Pillow names the buffer at its address: no two runs alike.
    return " ".join(str(error).split(" <_io.")[0].split()) or repr(error)


def convert_deep(image: Image.Image, inverted: bool = False) -> Image.Image:
    """16 bits of grey to RGB; Pillow itself clips instead of scaling."""
    if image.mode[0] != "I":
        return convert_image(image)
    deep = np.asarray(image)
    high = (deep // 256).astype(np.uint8)
    high = 255 - high if inverted else high
    high[deep == image.info.get("transparency", -1)] = 255
    return Image.fromarray(high).convert("RGB")


def convert_image(image: Image.Image) -> Image.Image:
    """Any picture to RGB, on white where it is transparent.

    Raises:
        ValueError: for pixels without a known range.
    """
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits have no known range")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    # Pillow copies a picture that is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def hash_pixels(image: Image.Image) -> str:
    """Equal for pictures that are equal pixel by pixel: 16 hex digits."""
    width, height = image.size
    digest = hashlib.sha256(f"{width} {height}".encode())
    for top in range(0, height, 256):  # a copy, of little at a time
        strip = image.crop((0, top, width, min(top + 256, height)))
        digest.update(strip.tobytes())
    return digest.hexdigest()[:16]


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
