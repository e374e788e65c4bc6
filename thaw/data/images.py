"""Decoding and resizing: the one place where pictures become arrays."""

import hashlib
import io
import re
import struct
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import (
    Image,
    ImageChops,
    ImageCms,
    ImageFile,
    ImageOps,
    PngImagePlugin,
    TiffImagePlugin,
)

from thaw.data.facts import CUT

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

# One text of a PNG, or a profile, may be as long as all of them together.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

# Tags of a TIFF.
SUBFILE_TYPE, PHOTOMETRIC, SUB_IFDS, DNG_VERSION = 254, 262, 330, 50706

# An entry of a TIFF: its photometry is that of a sensor behind colour filters.
SENSORS = [
    struct.pack(order + "HHIHH", PHOTOMETRIC, 3, 1, 32803, 0) for order in "<>"
]

RAW = "a camera's raw file: convert it to JPEG, PNG or TIFF"
VIDEO = "a video: take pictures from it"

# What begins so is no picture that Pillow reads.
KINDS = {
    rb"version https://git-lfs": "a pointer of Git LFS: run `git lfs pull`",
    rb"bplist00": "a placeholder: the picture is not downloaded from iCloud",
    rb"%PDF-": "a PDF: take pictures from it",
    rb"PK\x03\x04": "a zip archive: unpack it",
    rb"\s*(<\?xml.*?>\s*)?(<!--.*?-->\s*)?<(!doctype )?html": "a web page",
    rb"\s*(<.*)?<svg\b": "an SVG drawing: convert it to PNG",
    rb"FUJIFILMCCD-RAW|IIRO|IIRS|IIU\0|MMOR|FOVb|\0MRM|....ftypcrx": RAW,
    rb"....ftyp(?!hei|hev|mif|msf|avi)|....(moov|mdat|wide|free)": VIDEO,
    rb"RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]": VIDEO,
}

# How a format begins, and how each file of it ends.
ENDS = {
    b"\xff\xd8\xff": b"\xff\xd9",
    b"\x89PNG": b"\0\0\0\0IEND\xaeB`\x82",
}

# What of its rows a JPEG that is cut short must have.
LEAST_ROWS = 0.9

# Pillow reads one byte of 16 bits; by the other name it reads the other one.
OTHER_BYTE = {"LA;16B": "LA;16B"} | {  # grey with alpha has no other name
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", "RGBX", "RGBa")
    for order, other in ("BL", "LB", "NB")
}

# The mode by which a profile takes the colours of a mode.
COLOURS = {"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK"}
COLOURS |= dict.fromkeys(("P", "PA", "RGB", "RGBA", "RGBX"), "RGB")

# 16 levels of each channel, in all combinations.
CUBE = Image.fromarray(
    np.indices((16, 16, 16), np.uint8).reshape(3, 16, 256).T * np.uint8(17)
)

# Levels, of 255, by which colours differ and look the same.
FAINT = 4


def decode_image(data: bytes) -> Image.Image:
    """Decodes a file's bytes to an upright picture, RGB in terms of sRGB.

    Its info has as "flaw" one of `FLAWS`.

    Raises:
        Exception: whatever Pillow raises for bytes that are no whole picture.
    """
    if data.startswith(b"\xff\xd8\xff"):
        data = data.rstrip(b"\0")  # room that a download never filled
    flaw = ""
    try:
        if is_raw(data):
            raise ValueError(RAW)
        picture = read_picture(data)
    except Exception as error:
        if kind := name_kind(data):
            raise ValueError(kind) from error
        picture, flaw = read_cut(data, error), CUT
    picture.info = {"flaw": flaw}  # and nothing that the file says
    return picture


def open_image(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)


def read_picture(data: bytes) -> Image.Image:
    """Reads a whole file: of its frames the first one that shows something."""
    with open_image(data) as image:
        image.verify()  # checksums, where the format has them
    with open_image(data) as image:
        if find_raw_mode(image) in OTHER_BYTE:
            check_range(find_largest(data))
        first = convert_frame(image)
        if not getattr(image, "is_animated", False) or not is_blank(first):
            return first
        for number in range(1, image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            frame = convert_frame(image)
            if not is_blank(frame):
                return frame
    return first


def convert_frame(image: ImageFile.ImageFile) -> Image.Image:
    """Loads a frame, upright, and converts it to RGB."""
    raw_mode = find_raw_mode(image)
    inverted = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0
    upright = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.format == "PPM":
        upright = convert_deep(upright, raw_mode, inverted)
    return convert_image(upright)


def find_raw_mode(image: ImageFile.ImageFile) -> str:
    """Finds how Pillow calls the pixels of an image that is not loaded yet."""
    arguments = image.tile[0].args if image.tile else None
    if isinstance(arguments, tuple) and arguments:
        arguments = arguments[0]
    return arguments if isinstance(arguments, str) else ""


def find_extrema(image: Image.Image) -> np.ndarray:
    """Finds the least and the largest value of each band: (bands, 2)."""
    return np.array(image.getextrema()).reshape(-1, 2)


def is_blank(picture: Image.Image) -> bool:
    """Whether a picture in RGB is of one colour."""
    return bool(np.ptp(find_extrema(picture), axis=1).max() <= FAINT)


def read_cut(data: bytes, error: Exception) -> Image.Image:
    """Reads a JPEG or a PNG that lacks its last bytes alone.

    Args:
        data: of the file.
        error: why it can't be read as it is.

    Raises:
        Exception: that error if the file is not cut short.
        ValueError: if more is lost than `LEAST_ROWS` allows.
    """
    end = next((ENDS[head] for head in ENDS if data.startswith(head)), b"")
    for there in range(0 if data.endswith(end) else len(end)):
        if not data.endswith(end[:there]):
            continue
        whole = data + end[there:]
        try:
            picture = read_picture(whole)
        except Exception:  # it lacks more, or begins to end elsewhere
            continue
        if end == b"\xff\xd9":
            check_rows(whole)
        return picture
    raise error


def check_rows(data: bytes) -> None:
    """Checks that few rows of a JPEG are lost, or none but their last detail.

    Raises:
        ValueError: if more are.
    """
    with open_image(data) as image:
        assert image.fp is not None
        scanned = data.find(b"\xff\xda", image.fp.tell()) >= 0
        pixels = np.asarray(image).reshape(image.height, -1)
        if "progressive" in image.info:
            if not scanned:
                raise ValueError("cut short, in the first of its scans")
            return
    # What libjpeg has no data for is grey, of a level in the middle.
    there = np.flatnonzero(~np.isin(pixels, (127, 128)).all(axis=1))
    share = (there[-1] + 1) / len(pixels) if len(there) else 0
    if share < LEAST_ROWS:
        raise ValueError(f"cut short: only {share:.0%} of its rows are there")


def is_raw(data: bytes) -> bool:
    """Whether a file is a TIFF that holds what a camera's sensor saw.

    Its first picture is a preview.
    """
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if data[8:10] == b"CR" or any(entry in data for entry in SENSORS):
        return True
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    reduced = tags.get(SUBFILE_TYPE, 0) & 1 and SUB_IFDS in tags
    return bool(reduced or DNG_VERSION in tags)


def name_kind(data: bytes) -> str:
    """Names what bytes are that are no picture; else an empty string."""
    if not data:
        return "an empty file"
    if not data.strip(b"\0"):
        return "zero bytes alone: the content is lost"
    head = data[:1024].removeprefix(b"\xef\xbb\xbf")
    for pattern, kind in KINDS.items():
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return kind
    return ""


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


def check_range(largest: int) -> None:
    """Checks that pixels of 16 bits use them.

    Args:
        largest: their largest value.

    Raises:
        ValueError: if it shows that they hold 8 to 12 bits.
    """
    if 0 < largest < 4096:
        raise ValueError(
            "16 bits a value, of which the largest uses "
            f"{largest.bit_length()}: scale the values to 0 to 65535"
        )


def find_largest(data: bytes) -> int:
    """Finds the largest value of a picture in colours of 16 bits.

    Of its lower byte only if the higher one is always 0.
    """
    for shift in (8, 0):
        with open_image(data) as image:
            if shift == 0:
                image.tile = [swap_bytes(tile) for tile in image.tile]
            largest = int(find_extrema(image)[:3, 1].max())
        if largest:
            return largest << shift
    return 0


def swap_bytes(tile: ImageFile._Tile) -> ImageFile._Tile:
    """A part of an image of which Pillow reads the other byte of 16 bits."""
    if isinstance(tile.args, tuple):
        return tile._replace(args=(OTHER_BYTE[tile.args[0]], *tile.args[1:]))
    return tile._replace(args=OTHER_BYTE[str(tile.args)])


def convert_deep(
    image: Image.Image, raw_mode: str, inverted: bool = False
) -> Image.Image:
    """Scales 12 or 16 bits of grey to 8; Pillow itself clips.

    Args:
        image: of any mode; those of 8 bits are left as they are.
        raw_mode: how Pillow calls the pixels in the file.
        inverted: whether white is 0.

    Raises:
        ValueError: if 16 bits hold fewer.
    """
    if image.mode[0] != "I":
        return image
    deep = np.asarray(image)
    if ";16" in raw_mode:
        check_range(int(deep.max()))
    high = (deep // (16 if raw_mode == "I;12" else 256)).astype(np.uint8)
    high = 255 - high if inverted else high
    grey = Image.fromarray(high)
    if "transparency" in image.info:
        opaque = deep != image.info["transparency"]
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    grey.info = {"icc_profile": image.info.get("icc_profile")}
    return grey


def convert_image(image: Image.Image) -> Image.Image:
    """Converts any picture to RGB: on white, in the colours of sRGB.

    What nobody would see on white lies on black.

    Raises:
        ValueError: for pixels without a known range.
    """
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits have no known range")
    profile = image.info.get("icc_profile")
    colours = COLOURS.get(image.mode)
    if image.has_transparency_data:
        image = flatten_image(image.convert("RGBA"))
    transform = None
    if profile and colours:
        transform = find_transform(profile, colours)
    if transform:
        return transform.apply(image.convert(colours))
    # Pillow copies a picture that is RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def flatten_image(image: Image.Image) -> Image.Image:
    """Lays a picture on white, or, if it is white itself, on black.

    Args:
        image: RGBA, as is the result.
    """
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    least, most = find_extrema(image)[3]
    if find_extrema(flat).min() < 255 - FAINT or least == most:
        return flat
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)


@lru_cache(maxsize=16)
def find_transform(
    profile: bytes, colours: str
) -> ImageCms.ImageCmsTransform | None:
    """Finds what turns the colours of a profile into those of sRGB.

    Args:
        profile: as a file has it.
        colours: RGB, L or CMYK.

    Returns:
        None where that changes nothing that anybody sees, and for profiles
        that are broken or of other colours, which browsers ignore as well.
    """
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            colours,
            "RGB",
        )
    except (OSError, ImageCms.PyCMSError):
        return None
    cube = CUBE.convert(colours)
    change = ImageChops.difference(transform.apply(cube), cube.convert("RGB"))
    return transform if find_extrema(change).max() > FAINT else None


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
