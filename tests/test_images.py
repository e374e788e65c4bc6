"""Pictures of all kinds, decoded and resized."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from samples import PHOTOGRAPH, encode, prepare, save

from thaw.data.facts import CUT, FLAWS
from thaw.data.images import SENSORS, decode_image, is_image, resize_image
from thaw.prepare.folders import list_images
from thaw.prepare.items import read_array
from thaw.prepare.sources import open_folder


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
LARGE = PHOTOGRAPH.resize((400, 400))


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
PNG = encode(PHOTOGRAPH)
FTYP = b"\0\0\0\x18ftyp"

UNREADABLE = {
    "cut.jpg": (JPEG[: len(JPEG) // 2], "cut short: only "),
    "cut.png": (PNG[:-200], "Truncated"),
    "zeros.png": (make_half(), "checksum"),
    "program.eps": (encode(PHOTOGRAPH, "eps"), "cannot identify"),
    "cut.heic": (make_heic()[:-200], ""),
    "cut.webp": (encode(PHOTOGRAPH, "webp")[:-200], ""),
    "empty.jpg": (b"", "an empty file"),
    "lost.jpg": (bytes(4096), "zero bytes alone"),
    "text.jpg": (b"I am no picture", "cannot identify"),
    "pointer.jpg": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "`git lfs pull`",
    ),
    "float.tiff": (encode(PHOTOGRAPH.convert("F"), "tiff"), "no known range"),
    "whole.tiff": (encode(PHOTOGRAPH.convert("I"), "tiff"), "no known range"),
    "bomb.png": (encode(Image.new("1", (20000, 20000))), "bomb"),
}


KINDS = UNREADABLE | {
    "page.png": (b"\n<!DOCTYPE html><html></html>", "a web page"),
    "xhtml.png": (b'<?xml version="1.0"?><html></html>', "a web page"),
    "drawing.png": (b"<?xml?><!-- a --><svg width='1'/>", "an SVG drawing"),
    "cloud.jpg": (b"bplist00\xd4\1\2", "not downloaded from iCloud"),
    "paper.jpg": (b"%PDF-1.7\n", "a PDF"),
    "film.jpg": (FTYP + b"isom" + bytes(99), "a video"),
    "film.heic": (FTYP + b"qt  " + bytes(99), "a video"),
    "film.png": (b"RIFF\0\0\0\0AVI LIST", "a video"),
    "packed.jpg": (b"PK\3\4" + bytes(99), "a zip archive"),
    "raw.jpg": (FTYP + b"crx " + bytes(99), "raw file"),
    "raw.png": (b"FUJIFILMCCD-RAW 0201", "raw file"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_reason_says_what_a_file_is(kind):
    data, words = KINDS[kind]
    with pytest.raises(Exception, match=words or "."):
        decode_image(data)


def make_png(pixels):
    """Colours of 16 bits, which Pillow does not write."""
    height, width, bands = pixels.shape
    kind = {2: 4, 3: 2, 4: 6}[bands]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def make_tiff(data, size, bits, photometric):
    """A TIFF that is not compressed."""
    tags = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    tags[256], tags[257] = size
    tags[258], tags[259], tags[262] = bits, 1, photometric
    tags[273], tags[277], tags[278] = 0, len(bits), size[1]  # after the tags
    tags[279] = len(data)
    return b"II*\0\x08\0\0\0" + tags.tobytes(8) + data


def make_tiff_of_colours(pixels):
    data = pixels.astype("<u2").tobytes()
    return make_tiff(data, pixels.shape[1::-1], (16, 16, 16), 2)


def make_grey_ppm(pixels):
    data = pixels[..., 0].astype(">u2").tobytes()
    return b"P5 80 80 65535\n" + data


DEEP = {
    "grey": lambda x: encode(Image.fromarray(x[..., 0])),
    "grey tiff": lambda x: encode(Image.fromarray(x[..., 0]), "tiff"),
    "pgm": make_grey_ppm,
    "grey alpha": lambda x: make_png(np.dstack([x[..., 0], x[..., 0] | 4095])),
    "png": make_png,
    "tiff": make_tiff_of_colours,
}


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        (kind, bits)
        for kind in DEEP
        for bits in (8, 10, 12, 16)
        # Of which Pillow reads the higher byte alone.
        if (kind, bits) != ("grey alpha", 8)
    ],
)
def test_bits_that_are_not_scaled_are_refused(kind, bits):
    pixels = np.asarray(PHOTOGRAPH).astype(np.uint16)
    pixels = pixels * 257 >> 16 - bits
    data = DEEP[kind](pixels)
    if bits < 16:
        with pytest.raises(ValueError, match=f"largest uses {bits}:"):
            decode_image(data)
    else:
        alike = PHOTOGRAPH if kind in ("png", "tiff") else PHOTOGRAPH.split()[0]
        got = np.asarray(decode_image(data)).astype(int)
        if kind != "grey alpha":  # of which parts are transparent
            assert np.abs(got - np.asarray(alike.convert("RGB"))).max() <= 1


@pytest.mark.parametrize("kind", DEEP)
def test_a_black_picture_of_sixteen_bits_is_read(kind):
    assert decode_image(DEEP[kind](np.zeros((80, 80, 3), np.uint16)))


def test_twelve_bits_that_a_tiff_declares_are_scaled():
    grey = np.asarray(PHOTOGRAPH.convert("L"))
    one, two = (grey.reshape(-1, 2).astype(int) << 4).T
    packed = np.stack([one >> 4, (one & 15) << 4 | two >> 8, two & 255], axis=1)
    data = make_tiff(packed.astype(np.uint8).tobytes(), (80, 80), (12,), 1)
    assert np.array_equal(np.asarray(decode_image(data))[..., 0], grey)


def test_bits_of_an_array_that_are_not_scaled_are_refused():
    pixels = np.asarray(PHOTOGRAPH).astype(np.uint16)
    got = np.asarray(read_array(pixels * 257).decode())
    assert np.array_equal(got, np.asarray(PHOTOGRAPH))
    with pytest.raises(ValueError, match="largest uses 12:"):
        read_array(pixels << 4)


TIFF = encode(PHOTOGRAPH, "tiff")

RAWS = {
    "dng": encode(PHOTOGRAPH, "tiff", tiffinfo={50706: b"\1\4\0\0"}),
    "preview": encode(PHOTOGRAPH, "tiff", tiffinfo={254: 1, 330: 8}),
    "sensor": TIFF + SENSORS[0],
    "sensor, big endian": TIFF + SENSORS[1],
    "cr2": b"II*\0\x10\0\0\0CR\2\0" + TIFF[12:],
}


@pytest.mark.parametrize("kind", RAWS)
def test_the_preview_in_a_raw_file_is_not_the_picture(kind):
    with pytest.raises(ValueError, match="raw file: convert it"):
        decode_image(RAWS[kind])


@pytest.mark.parametrize("tags", [{}, {254: 1}, {330: 8}, {271: "NIKON"}])
def test_a_tiff_that_is_no_raw_file_is_read(tags):
    data = encode(PHOTOGRAPH, "tiff", tiffinfo=tags)
    assert np.array_equal(np.asarray(decode_image(data)), PHOTOGRAPH)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff", "avif"])
@pytest.mark.parametrize("first", ["white", "black", (0, 0, 0, 0)])
def test_the_first_frame_that_shows_something_is_taken(kind, first):
    frames = [Image.new("RGBA", LARGE.size, first)]
    frames += [LARGE.convert("RGBA"), LARGE.rotate(90).convert("RGBA")]
    data = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], duration=50
    )
    got = np.asarray(decode_image(data)).astype(int)
    assert np.abs(got - np.asarray(LARGE)).mean() < 8


def test_an_animation_of_nothing_is_its_first_frame():
    white, black = (Image.new("L", (8, 8), level) for level in (255, 0))
    data = encode(white, "gif", save_all=True, append_images=[black])
    assert (np.asarray(decode_image(data)) == 255).all()


def draw_on_nothing(level, alpha=255):
    """A square on a transparent ground."""
    drawing = Image.new("LA", (20, 20), (level, 0))
    drawing.paste((level, alpha), (5, 5, 15, 15))
    return drawing


@pytest.mark.parametrize(
    ("level", "expected"), [(255, (0, 255)), (252, (0, 252)), (0, (255, 0))]
)
def test_a_white_drawing_lies_on_black(level, expected):
    got = np.asarray(decode_image(encode(draw_on_nothing(level))))
    assert (got[0, 0, 0], got[10, 10, 0]) == expected


def test_a_white_drawing_of_sixteen_bits_lies_on_black():
    deep = np.full((20, 20), 1, np.uint16)
    deep[5:15, 5:15] = 65535
    got = np.asarray(
        decode_image(encode(Image.fromarray(deep), transparency=1))
    )
    assert (got[0, 0, 0], got[10, 10, 0]) == (0, 255)


def test_what_is_transparent_everywhere_is_white():
    got = np.asarray(decode_image(encode(draw_on_nothing(255, 0))))
    assert (got == 255).all()


def make_profile(space, **tags):
    """An ICC profile; what its tags need not have is left out."""
    tags = {"wtpt": pack_xyz(0.9642, 1, 0.8249)} | tags
    kind = b"prtr" if space == "CMYK" else b"mntr"
    connection = b"Lab " if space == "CMYK" else b"XYZ "
    start, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        place = start + len(body)
        table += name.encode() + struct.pack(">II", place, len(data))
        body += data.ljust(-len(data) % 4 + len(data), b"\0")
    head = struct.pack(">I4sI4s", start + len(body), b"", 0x02400000, kind)
    head += space.ljust(4).encode() + connection + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + pack_xyz(0.9642, 1, 0.8249)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def pack_xyz(*values):
    return b"XYZ \0\0\0\0" + struct.pack(
        ">3i", *(round(value * 65536) for value in values)
    )


def pack_gamma(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def make_ink():
    """CMYK, of which the black ink alone prints."""
    inks = np.indices((2, 2, 2, 2))[3].ravel()
    table = np.stack([255 * (1 - inks), 0 * inks + 128, 0 * inks + 128], axis=1)
    matrix = np.eye(3).astype(">i4") * 65536
    ramp = bytes(range(256))
    return make_profile(
        "CMYK",
        A2B0=b"mft1\0\0\0\0\4\3\2\0"
        + matrix.astype(">i4").tobytes()
        + ramp * 4
        + table.astype(np.uint8).tobytes()
        + ramp * 3,
    )


def make_rgb(curve, red, green, blue):
    primaries = {"rXYZ": red, "gXYZ": green, "bXYZ": blue}
    return make_profile(
        "RGB",
        **{name: pack_xyz(*value) for name, value in primaries.items()},
        **dict.fromkeys(("rTRC", "gTRC", "bTRC"), curve),
    )


def pack_curve_of_srgb():
    """As a table, which cameras have, and not quite the formula."""
    x = np.linspace(0, 1, 256)
    y = np.where(x < 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    table = (y * 65535).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", 256) + table


WIDE_COLOURS = make_rgb(  # the primaries of Display P3
    pack_gamma(2.2),
    (0.5151, 0.2412, -0.0011),
    (0.2919, 0.6922, 0.0419),
    (0.1572, 0.0666, 0.7841),
)
NEARLY_SRGB = make_rgb(
    pack_curve_of_srgb(),
    (0.4357, 0.2225, 0.0139),
    (0.3855, 0.7169, 0.0971),
    (0.1431, 0.0606, 0.7141),
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_OF_MACS = make_profile("GRAY", kTRC=pack_gamma(1.0))
INK = make_ink()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "heif"])
def test_colours_of_a_profile_become_srgb(kind):
    red = Image.new("RGB", (16, 16), (234, 51, 35))  # sRGB's, in Display P3
    data = encode(red, kind, icc_profile=WIDE_COLOURS)
    red, green, blue = np.asarray(decode_image(data))[8, 8].astype(int)
    assert red > 250 and green < 15 and blue < 15


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_a_grey_profile_is_applied(mode, transparent):
    level = 100
    image = Image.new("L", (16, 16), level)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    more = {"transparency": 0} if transparent else {}
    data = encode(image, icc_profile=GREY_OF_MACS, **more)
    got = np.asarray(decode_image(data))[8, 8]
    expected = 255 * (1.055 * (level / 255) ** (1 / 2.4) - 0.055)
    assert np.abs(got - expected).max() < 2


@pytest.mark.parametrize("kind", ["jpeg", "tiff"])
def test_inks_of_a_profile_become_srgb(kind):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.asarray(decode_image(encode(cyan, kind)))[8, 8, 0] < 5
    data = encode(cyan, kind, icc_profile=INK)
    assert np.asarray(decode_image(data))[8, 8].min() > 250


@pytest.mark.parametrize(
    "profile",
    [b"no profile", WIDE_COLOURS[:200], GREY_OF_MACS, INK, SRGB, NEARLY_SRGB],
    ids=["text", "cut", "grey", "inks", "srgb", "nearly srgb"],
)
def test_profiles_that_say_nothing_change_nothing(profile):
    data = encode(PHOTOGRAPH, icc_profile=profile)
    assert np.array_equal(np.asarray(decode_image(data)), PHOTOGRAPH)


def test_threads_share_a_profile():
    data = encode(PHOTOGRAPH, "png", icc_profile=WIDE_COLOURS)
    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(decode_image, [data] * 64)
    assert all(other.tobytes() == first.tobytes() for other in others)


def test_long_texts_of_a_png_are_no_reason():
    texts = PngInfo()
    texts.add_text("notes", "x" * 2**21, zip=True)
    texts.add_itxt("more", "y" * 2**21, zip=True)
    texts.add_text("flaw", "a word of the file's own")
    data = encode(PHOTOGRAPH, pnginfo=texts)
    got = decode_image(data)
    assert np.array_equal(np.asarray(got), PHOTOGRAPH)
    assert got.info["flaw"] == ""
    long = WIDE_COLOURS + bytes(2**21)
    assert not np.array_equal(
        np.asarray(decode_image(encode(PHOTOGRAPH, icc_profile=long))),
        PHOTOGRAPH,
    )


def make_dark_foot():
    """A picture whose lower half is black."""
    image = LARGE.copy()
    image.paste("black", (0, 200, 400, 400))
    return image


@pytest.mark.parametrize("lost", [1, 2, 0.06])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("image", [LARGE, make_dark_foot()])
def test_a_jpeg_that_lacks_its_last_bytes_is_read(
    image, mode, progressive, lost
):
    data = encode(image.convert(mode), "jpeg", progressive=progressive)
    whole = np.asarray(decode_image(data)).astype(int)
    lost = lost if lost >= 1 else int(lost * len(data))
    if image is not LARGE:
        lost = min(lost, 60)  # of black, which takes few bytes
    got = decode_image(data[:-lost])
    assert got.info["flaw"] == CUT
    assert np.abs(np.asarray(got) - whole)[:360].mean() < 3
    if not progressive:
        assert np.array_equal(np.asarray(got)[:184], whole[:184])


def test_rows_that_are_grey_are_not_lost():
    image = LARGE.copy()
    image.paste((128, 128, 128), (0, 0, 400, 200))
    assert decode_image(encode(image, "jpeg")[:-2]).info["flaw"] == CUT


def test_a_jpeg_that_is_turned_may_lack_its_last_bytes():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(LARGE.crop((0, 0, 400, 200)), "jpeg", exif=exif)
    assert decode_image(data[:-2]).size == (200, 400)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.85])
@pytest.mark.parametrize("filled", [False, True])
def test_a_jpeg_that_lacks_rows_is_refused(share, filled):
    data = encode(LARGE, "jpeg")
    cut = data[: int(share * len(data))]
    cut += bytes(len(data) - len(cut)) if filled else b""
    with pytest.raises(ValueError, match=r"cut short: only \d+% of its rows"):
        decode_image(cut)


def test_a_jpeg_without_its_first_scan_is_refused():
    thumbnail = Image.Exif()
    thumbnail[0x010E] = "\xff\xda"  # what looks like a scan
    data = encode(LARGE, "jpeg", progressive=True, exif=thumbnail)
    with pytest.raises(ValueError, match="first of its scans"):
        decode_image(data[: len(data) // 20])


@pytest.mark.parametrize("lost", range(5, 13))
def test_a_png_without_its_end_is_read(lost):
    got = decode_image(PNG[:-lost])
    assert np.array_equal(np.asarray(got), PHOTOGRAPH)
    assert got.info["flaw"] == CUT


def test_a_gif_without_its_end_is_read():
    data = encode(PHOTOGRAPH, "gif")
    assert decode_image(data).tobytes() == decode_image(data[:-1]).tobytes()


def test_flaws_are_said_counted_and_kept(raw, tmp_path, capsys):
    for number in range(8):
        image = LARGE.rotate(10 * number)
        path = raw / "train" / "both" / f"cut{number}.png"
        save(image, path)
        path.write_bytes(path.read_bytes()[:-12])
    first = tmp_path / "first"
    counts = prepare(open_folder(raw), first)
    said = capsys.readouterr().out
    assert f"read, though {CUT}: train/both/cut0.png, " in said
    assert "and 3 more" in said and "can't read" not in said
    paths = [f"train/both/cut{number}.png" for number in range(8)]
    assert counts["flawed"] == {CUT: paths}
    again = prepare(open_folder(raw), tmp_path / "again", before=first)
    assert again == counts
    for path in first.rglob("facts.npy"):
        part = path.relative_to(first)
        assert path.read_bytes() == (tmp_path / "again" / part).read_bytes()
    flaws = [np.load(path)["flaw"] for path in first.rglob("facts.npy")]
    assert (np.concatenate(flaws) == FLAWS.index(CUT)).sum() == 8


def test_a_set_without_flaws_says_nothing(raw, tmp_path, capsys):
    assert prepare(open_folder(raw), tmp_path / "prepared")["flawed"] == {}
    assert "read, though" not in capsys.readouterr().out
