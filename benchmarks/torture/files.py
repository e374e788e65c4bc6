"""Files of every kind that is no whole picture, or no plain one."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.project import Project

FORMATS = ("jpeg", "png", "gif", "bmp", "tiff", "webp", "ppm", "tga", "avif")


def encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def draw(rng: np.random.Generator, side: int) -> Image.Image:
    small = rng.integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(small).resize((side, side))


def make_bad(rng: np.random.Generator) -> dict[str, bytes]:
    """Files that can't be read as one picture with a known range."""
    image = draw(rng, 96)
    bad = {
        f"cut-{share:.0%}.{form}": data[: int(len(data) * share)]
        for form in FORMATS
        for data in [encode(image, form)]
        for share in (0.1, 0.4, 0.8, 0.97)
    }
    zeros = Image.new("1", (20000, 20000))
    return bad | {
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "page.jpg": b"<html></html>",
        "zip.png": b"PK\x03\x04" + bytes(100),
        "float.tiff": encode(image.convert("F"), "tiff"),
        "int.tiff": encode(image.convert("I"), "tiff"),
        "bomb.png": encode(zeros, "png"),
        'ñ 文字 🧊\n".jpg': b"odd name, no picture",
    }


def make_good(rng: np.random.Generator) -> dict[str, bytes]:
    """Files of unusual kinds that can be read."""
    image = draw(rng, 96)
    exif = Image.Exif()
    exif[0x0112] = 6
    good = {f"plain.{form}": encode(draw(rng, 96), form) for form in FORMATS}
    return good | {
        "png-named.jpg": encode(draw(rng, 96), "png"),
        "cmyk.jpg": encode(draw(rng, 96).convert("CMYK"), "jpeg"),
        "palette.png": encode(
            draw(rng, 96).quantize(64), "png", transparency=0
        ),
        "grey.jpg": encode(draw(rng, 96).convert("L"), "jpeg"),
        "alpha.png": encode(draw(rng, 96).convert("RGBA"), "png"),
        "turned.jpg": encode(draw(rng, 96), "jpeg", exif=exif),
        "animated.gif": encode(
            image, "gif", save_all=True, append_images=[draw(rng, 96)]
        ),
        "pages.tiff": encode(
            draw(rng, 96), "tiff", save_all=True, append_images=[image]
        ),
        "pixel.png": encode(draw(rng, 1), "png"),
        "strip.png": encode(draw(rng, 96).resize((1000, 20)), "png"),
        "ñ 文字 🧊 good.png": encode(draw(rng, 96), "png"),
    }


def count_bad_files(folder: Path, options) -> Iterator[str]:
    """How many bad files are named, and how many good ones are used."""
    rng = np.random.default_rng(options.seed)
    bad, good = make_bad(rng), make_good(rng)
    raw = folder / "raw"
    for kind in ("a", "b"):
        (raw / kind).mkdir(parents=True)
        for number in range(10 * len(bad) // 2):
            draw(rng, 64).save(raw / kind / f"{number:03d}.png")
    for name, data in (bad | good).items():
        (raw / "a" / name).write_bytes(data)
    project = Project.create(folder / "project")
    project.set({"prepare": {"source": "folder", "path": str(raw)}})
    project.repro("prepare")
    prepared = project.folder / "data/prepared"
    named = read_names(prepared / "quarantine.csv")
    used = set().union(
        *(
            read_names(prepared / s / "index.csv")
            for s in ("train", "validation", "test")
        )
    )
    yield f"{len(named & set(bad))} of {len(bad)} bad files named"
    yield f"{len(used & set(good))} of {len(good)} unusual files used"
    silent = (set(bad) | set(good)) - named - used
    yield f"{len(silent)} silent" + f": {sorted(silent)}" * bool(silent)
    wrong = sorted(set(bad) & used) + sorted(set(good) & named)
    if wrong:
        yield f"otherwise than expected: {wrong}"


def read_names(table: Path) -> set[str]:
    with table.open(encoding="utf-8", newline="") as file:
        return {row["path"].split("/", 1)[1] for row in csv.DictReader(file)}
