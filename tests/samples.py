"""Photographs and noise made up for tests, prepared, and read back."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.project import PARAMS
from thaw.data.facts import FACTS, digest_pixels
from thaw.files.atomic import link_folder, new_folder
from thaw.prepare.corrections import Corrections
from thaw.prepare.decoded import DecodedBefore
from thaw.prepare.pack import prepare_dataset
from thaw.stage.checkpoints import Checkpoint

RNG = np.random.default_rng(0)

ODD = '<script>alert(1)</script> & "x" Größe \u732b ' + "long" * 40


def draw_stripes(
    kind: str, rng: np.random.Generator, side: int, width: int = 6
) -> Image.Image:
    """Stripes, across, down or both, in a light of its own."""
    y, x = (np.mgrid[:side, :side] + rng.integers(12)) // width % 2
    pattern = {"across": y, "both": x ^ y, "down": x}[kind]
    spots = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    light = np.asarray(spots.resize((side, side), Image.Resampling.BILINEAR))
    noise = rng.normal(0, 20, (side, side, 3))
    pixels = 130 * pattern[..., None] + 0.4 * light + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photographs(
    folder: Path, each: int = 10, seed: int = 0, widths: tuple = (6,)
) -> None:
    """Class folders of striped JPEGs of different sizes."""
    rng = np.random.default_rng(seed)
    for kind in ("across", "both", "down"):
        (folder / kind).mkdir(parents=True)
        for number in range(each):
            side, width = rng.integers(40, 90), rng.choice(widths)
            image = draw_stripes(kind, rng, side, width)
            image.save(folder / kind / f"{number:02d}.jpg")


OPTIONS = {
    "image_size": 32,
    "fit": "squash",
    "validation": 0.15,
    "test": 0.2,
    "seed": 0,
    "bad_images": "skip",
    "group": None,
    "duplicates": "remove",
}


def prepare(source, folder, before=None, corrections=None, **options):
    """`prepare_dataset` into a new folder, with a checkpoint of its own."""
    scratch = folder.with_name(f"{folder.name}-scratch")
    scratch.mkdir(exist_ok=True)
    with new_folder(folder) as unfinished:
        options = OPTIONS | options
        counts = prepare_dataset(
            source,
            DecodedBefore(before, options["image_size"]),
            corrections or Corrections(),
            Checkpoint(scratch),
            **options,
        )
        link_folder(scratch / "prepared", unfinished)
    shutil.rmtree(scratch)
    return counts


def encode(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


IMAGES = RNG.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)

LABELS = np.arange(24) % 3

AUGMENT = PARAMS["augment"] | {
    "rotation": 0.1,
    "horizontal_flip": True,
    "contrast": 0.2,
}
STILL = dict.fromkeys(AUGMENT, 0) | {"horizontal_flip": False}

ROWS = np.arange(24)

DIGESTS = np.stack([digest_pixels(image) for image in IMAGES])

FACTS_OF_IMAGES = np.zeros(24, FACTS)
FACTS_OF_IMAGES["digest"] = DIGESTS


def read(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


WIDTHS = (5, 6, 7, 8)  # of stripes: no two photographs alike


def read_paths(folder, split):
    return {row["path"] for row in read(folder / split / "index.csv")}


PHOTOGRAPH = draw_stripes("both", np.random.default_rng(7), 80)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
