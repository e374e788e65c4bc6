"""Pictures of all kinds, decoded and resized."""

import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from samples import PHOTOGRAPH, encode

from thaw.data.images import decode_image, is_image, resize_image
from thaw.prepare.folders import list_images


def test_resizing_is_antialiased():
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[::2] = 255
    small = resize_image(Image.fromarray(lines), 16, "squash")
    assert abs(small[4:-4].astype(float) - 127.5).max() < 12


def test_small_images_are_upsampled_smoothly():
    image = Image.fromarray(np.array([[0, 255], [0, 255]], np.uint8))
    wide = resize_image(image.convert("RGB"), 32, "squash")
    assert wide.shape == (32, 32, 3)
    assert (np.diff(wide[0, :, 0].astype(int)) >= 0).all()
    assert len(np.unique(wide)) > 8


def test_crop_keeps_the_middle_and_its_aspect():
    image = np.zeros((40, 120, 3), np.uint8)
    image[:, 40:80] = 255
    assert resize_image(Image.fromarray(image), 32, "crop").min() > 200
    assert resize_image(Image.fromarray(image), 32, "squash").min() == 0


def test_decoding_turns_upright_and_keeps_sixteen_bits():
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    assert decode_image(encode(image, exif=exif)).size == (2, 3)
    deep = Image.fromarray(np.full((4, 4), 32768, np.uint16))
    assert np.asarray(decode_image(encode(deep)))[0, 0].tolist() == [128] * 3


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "bmp", "webp", "heif"])
def test_an_image_is_known_by_its_head(tmp_path, kind):
    path = tmp_path / "photograph"
    path.write_bytes(encode(Image.new("RGB", (300, 200)), kind))
    assert is_image(path)
    assert list_images(tmp_path, below=True) == [str(path)]


@pytest.mark.parametrize("text", ["P1 has a cold", "BMW für alle!!!!", "", "x"])
def test_text_is_no_image(tmp_path, text):
    path = tmp_path / "notes"
    path.write_text(text * 2)
    assert not is_image(path)


WIDE = PHOTOGRAPH.resize((500, 10))


def make_deep(image):
    return Image.fromarray(
        np.asarray(image.convert("L")).astype(np.uint16) * 257
    )


def make_upright():
    """The photograph, stored on its side with a note of that."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(PHOTOGRAPH.rotate(90, expand=True), "png", exif=exif)


def make_animated():
    more = [PHOTOGRAPH.rotate(90), PHOTOGRAPH.rotate(180)]
    return encode(
        PHOTOGRAPH, "webp", lossless=True, save_all=True, append_images=more
    )


def make_transparent():
    """A palette's picture whose left half is transparent."""
    image = PHOTOGRAPH.quantize(200)
    pixels = np.asarray(image).copy()
    pixels[:, :40] = 255
    hole = Image.fromarray(pixels, "P")
    hole.putpalette((image.getpalette() + [0] * 768)[:768])
    return encode(hole, "png", transparency=255)


def make_half():
    """A file of full length whose second half a download never wrote."""
    data = encode(PHOTOGRAPH.resize((28, 28)))
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def make_white_is_zero():
    grey = np.asarray(make_deep(PHOTOGRAPH))
    return encode(Image.fromarray(65535 - grey), "tiff", tiffinfo={262: 0})


def make_clear_grey():
    """16 bits of grey, of which one value is transparent."""
    deep = np.asarray(make_deep(PHOTOGRAPH)).copy()
    deep[:, :10] = 77
    return encode(Image.fromarray(deep), "png", transparency=77)


def make_pgm():
    deep = np.asarray(make_deep(PHOTOGRAPH)).astype(">u2")
    return b"P5 80 80 65535\n" + deep.tobytes()


def make_heic(orientation=1, deep=False):
    """A telephone's file: stored on its side, which two notes say."""
    image = PHOTOGRAPH
    if orientation == 6:
        image = image.rotate(90, expand=True)
    pixels, mode = np.asarray(image), "RGB"
    if deep:
        pixels, mode = pixels.astype(np.uint16) * 257, "RGB;16"
    file = pillow_heif.from_bytes(mode, image.size, pixels.tobytes())
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    file.save(buffer, quality=-1, chroma=444, exif=exif.tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_upright(orientation, deep):
    got = decode_image(make_heic(orientation, deep))
    assert got.mode == "RGB" and got.size == PHOTOGRAPH.size
    error = np.asarray(got).astype(int) - np.asarray(PHOTOGRAPH)
    assert np.abs(error).max() <= 4


READABLE = {
    "png named jpg": (encode(PHOTOGRAPH), PHOTOGRAPH),
    "grey": (encode(PHOTOGRAPH.convert("L")), PHOTOGRAPH.convert("L")),
    "grey alpha": (encode(PHOTOGRAPH.convert("LA")), PHOTOGRAPH.convert("L")),
    "16 bit": (encode(make_deep(PHOTOGRAPH)), PHOTOGRAPH.convert("L")),
    "cmyk": (encode(PHOTOGRAPH.convert("CMYK"), "tiff"), PHOTOGRAPH),
    "white is zero": (make_white_is_zero(), PHOTOGRAPH.convert("L")),
    "pgm": (make_pgm(), PHOTOGRAPH.convert("L")),
    "upright": (make_upright(), PHOTOGRAPH),
    "animated": (make_animated(), PHOTOGRAPH),
    "one pixel": (
        encode(PHOTOGRAPH.crop((0, 0, 1, 1))),
        PHOTOGRAPH.crop((0, 0, 1, 1)),
    ),
    "strip": (encode(WIDE), WIDE),
}


@pytest.mark.parametrize("kind", READABLE)
def test_unusual_files_are_decoded(kind):
    data, expected = READABLE[kind]
    expected = np.asarray(expected.convert("RGB"))
    got = np.asarray(decode_image(data))
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_transparent_pixels_become_white():
    got = np.asarray(decode_image(make_transparent()))
    assert (got[:, :40] == 255).all()
    error = np.abs(got[:, 40:].astype(int) - np.asarray(PHOTOGRAPH)[:, 40:])
    assert error.mean() < 10


def test_a_transparent_grey_becomes_white():
    got = np.asarray(decode_image(make_clear_grey()))
    assert (got[:, :10] == 255).all()
    expected = np.asarray(PHOTOGRAPH.convert("L").convert("RGB"))
    assert np.array_equal(got[:, 10:], expected[:, 10:])


JPEG = encode(PHOTOGRAPH, "jpeg")

UNREADABLE = {
    "cut.jpg": (JPEG[:-200], "truncated"),
    "cut.png": (encode(PHOTOGRAPH)[:-200], "Truncated"),
    "zeros.png": (make_half(), "checksum"),
    "program.eps": (encode(PHOTOGRAPH, "eps"), "cannot identify"),
    "cut.heic": (make_heic()[:-200], ""),
    "cut.webp": (encode(PHOTOGRAPH, "webp")[:-200], ""),
    "empty.jpg": (b"", "cannot identify"),
    "text.jpg": (b"I am no picture", "cannot identify"),
    "page.png": (b"<html></html>", "cannot identify"),
    "float.tiff": (encode(PHOTOGRAPH.convert("F"), "tiff"), "no known range"),
    "whole.tiff": (encode(PHOTOGRAPH.convert("I"), "tiff"), "no known range"),
    "bomb.png": (encode(Image.new("1", (20000, 20000))), "bomb"),
}
