"""Copies of photographs, found and missed; false pairs; time."""

import io
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from thaw.data.images import decode_image
from thaw.prepare.near_duplicates import (
    FINGERPRINT,
    find_duplicates,
    make_fingerprint,
)

SAMPLE = 600  # photographs that are copied in each way
SIZES = (25_000, 50_000, 100_000)  # fingerprints that are matched

Resampling = Image.Resampling


def encode(image: Image.Image, form: str, **options) -> Image.Image:
    file = io.BytesIO()
    image.save(file, form, **options)
    return decode_image(file.getvalue())


def jpeg(image: Image.Image, quality: int = 75) -> Image.Image:
    return encode(image, "JPEG", quality=quality)


def webp(image: Image.Image, quality: int = 75) -> Image.Image:
    return encode(image, "WEBP", quality=quality)


def resize(image, across, down=None, by=Resampling.BICUBIC) -> Image.Image:
    width, height = image.size
    size = round(width * across), round(height * (down or across))
    return image.resize(size, by)


def square(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Resampling.BILINEAR)


def relight(image: Image.Image, factor=1.0, levels=0) -> Image.Image:
    return image.point(lambda v: min(max(round(v * factor + levels), 0), 255))


def crop(image, left, top, right, bottom, quality=75) -> Image.Image:
    width, height = image.size
    box = (
        round(width * left),
        round(height * top),
        width - round(width * right),
        height - round(height * bottom),
    )
    return jpeg(image.crop(box), quality)


def crop_area(image: Image.Image, area: float) -> Image.Image:
    """A crop anywhere that keeps this share of the area and the shape."""
    x, y = np.random.default_rng(list(image.tobytes()[:64])).random(2)
    cut = 1 - area**0.5
    return crop(image, cut * x, cut * y, cut * (1 - x), cut * (1 - y))


def crop_sides(image: Image.Image, most: float) -> Image.Image:
    """A crop of at most this share off each side."""
    rng = np.random.default_rng(list(image.tobytes()[:64]))
    return crop(image, *rng.uniform(0, most, 4))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 30": partial(jpeg, quality=30),
    "JPEG 60": partial(jpeg, quality=60),
    "JPEG 95": partial(jpeg, quality=95),
    "WebP 30": partial(webp, quality=30),
    "WebP 75": webp,
    "0.25x nearest": lambda i: resize(i, 0.25, by=Resampling.NEAREST),
    "0.25x bilinear": lambda i: resize(i, 0.25, by=Resampling.BILINEAR),
    "0.25x Lanczos": lambda i: resize(i, 0.25, by=Resampling.LANCZOS),
    "0.5x box": lambda i: resize(i, 0.5, by=Resampling.BOX),
    "2x bicubic": lambda i: resize(i, 2),
    "0.6x by 0.66x": lambda i: resize(i, 0.6, 0.66),
    "224 px square": lambda i: square(i, 224),
    "0.25x, JPEG 40": lambda i: jpeg(resize(i, 0.25), 40),
    "0.5x, JPEG 40": lambda i: jpeg(resize(i, 0.5), 40),
    "150 px square, WebP 30": lambda i: webp(square(i, 150), 30),
    "levels x 1.1": lambda i: relight(i, 1.1),
    "levels x 0.9": lambda i: relight(i, 0.9),
    "levels + 25": lambda i: relight(i, levels=25),
    "levels - 25": lambda i: relight(i, levels=-25),
    "levels x 1.1, JPEG 75": lambda i: jpeg(relight(i, 1.1)),
    "2.5 % off 4 sides": lambda i: crop(i, *[0.025] * 4),
    "5 % off 4 sides": lambda i: crop(i, *[0.05] * 4),
    "5 % off the left": lambda i: crop(i, 0.05, 0, 0, 0),
    "5 % off the right": lambda i: crop(i, 0, 0, 0.05, 0),
    "5 % off the top": lambda i: crop(i, 0, 0.05, 0, 0),
    "5 % off the bottom": lambda i: crop(i, 0, 0, 0, 0.05),
    "3 % off the left": lambda i: crop(i, 0.03, 0, 0, 0),
    "5 % off two sides": lambda i: crop(i, 0.05, 0.05, 0, 0),
    "0 to 5 % off each side": lambda i: crop_sides(i, 0.05),
    "95 % of the area": lambda i: crop_area(i, 0.95),
    "5 % off 4 sides, 0.5x": lambda i: resize(crop(i, *[0.05] * 4), 0.5),
}


def load(file: Path) -> Image.Image:
    return decode_image(file.read_bytes())


def make_fingerprints(files: list[Path]) -> np.ndarray:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(
            list(pool.map(lambda file: make_fingerprint(load(file)), files))
        )


def copy_pictures(files: list[Path]) -> dict[str, np.ndarray]:
    """Fingerprints of the copies of each kind."""

    def copy(file: Path) -> list[np.ndarray]:
        image = load(file)
        return [make_fingerprint(make(image)) for make in COPIES.values()]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        copies = np.stack(list(pool.map(copy, files)), axis=1)
    return dict(zip(COPIES, copies, strict=True))


def measure_recall(
    originals: np.ndarray, sample: np.ndarray, copies: dict[str, np.ndarray]
) -> dict[str, float]:
    """Share of the copies that are paired with their original."""
    recall = {}
    for kind, fingerprints in copies.items():
        pairs = find_duplicates(np.concatenate([originals, fingerprints]))
        found = {(i, j) for i, j, _ in pairs}
        true = zip(sample, len(originals) + np.arange(len(sample)), strict=True)
        recall[kind] = sum(pair in found for pair in true) / len(sample)
    return recall


def make_many(files: list[Path], count: int) -> np.ndarray:
    """Fingerprints of pictures that differ: parts, mirrored, one over another.

    Parts of at most 70 % of each side, so that few are copies.
    """
    images = np.stack([np.asarray(square(load(f), 128)) for f in files])
    many = np.empty((count, *FINGERPRINT), np.uint8)

    def make(row: int) -> None:
        rng = np.random.default_rng([1, row])
        parts = []
        for image in images[rng.integers(len(images), size=2)]:
            height, width = (128 * rng.uniform(0.4, 0.7, 2)).astype(int)
            top, left = rng.integers(128 - height), rng.integers(128 - width)
            part = image[top : top + height, left : left + width]
            part = part[:, :: rng.choice([-1, 1])]
            parts.append(cv2.resize(part, (64, 64)))
        share = rng.choice([0, 0.3])
        mixed = cv2.addWeighted(parts[0], 1 - share, parts[1], share, 0)
        many[row] = make_fingerprint(Image.fromarray(mixed))

    if count >= len(images):
        many[: len(images)] = [
            make_fingerprint(Image.fromarray(image)) for image in images
        ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make, range(len(images), count)))
    return many


def count_copies(folder: Path, options) -> Iterator[str]:
    """Each copy of a sample of photographs is sought among all of them."""
    if not options.data:
        yield "not run: --data names photographs to copy"
        return
    files = sorted(options.data.rglob("*.jpg"))
    originals = make_fingerprints(files)
    pairs = find_duplicates(originals)
    yield f"{len(pairs)} pairs among the {len(files)} photographs themselves"
    for i, j, similarity in pairs:
        yield f"  {similarity:.3f} {files[i].name} {files[j].name}"
    drawn = np.random.default_rng(options.seed).permutation(len(files))
    sample = np.sort(drawn[:SAMPLE])
    copies = copy_pictures([files[row] for row in sample])
    for kind, recall in measure_recall(originals, sample, copies).items():
        found = round(recall * len(sample))
        missed = len(sample) - found
        yield f"{kind}: {found} found, {missed} missed, {recall:.1%}"
    for size in SIZES:
        many = make_many(files, size)
        start = time.perf_counter()
        pairs = find_duplicates(many)
        seconds = time.perf_counter() - start
        yield f"{size} pictures matched in {seconds:.1f} s, {len(pairs)} pairs"
