"""Frozen forward passes, augmentation included, against benchmark_app."""

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
from PIL import Image

from benchmarks.project import PARAMS, RECIPE, run
from thaw.data.activations import ActivationWriter
from thaw.data.blocks import Order
from thaw.data.efficientnet import IMAGE, POOLED
from thaw.data.images import resize_image
from thaw.data.views import augment_images
from thaw.files.arrays import create_array
from thaw.frozen.engines import freeze_model
from thaw.frozen.network import FrozenNetwork
from thaw.frozen.openvino import convert_to_openvino
from thaw.network.backbone import build_backbone
from thaw.network.backend import keras
from thaw.network.parts import get_part
from thaw.network.pooling import pool_blocks
from thaw.network.thawing import find_tap

COUNT = 2048
SECONDS = 8
AUGMENT = PARAMS["augment"] | RECIPE["augment"]


def load_photographs(folder: Path, image_size: int) -> np.ndarray:
    """The first 512 by name, (n, image_size, image_size, 3) uint8."""
    images = []
    for file in sorted(folder.glob("*/*"))[:512]:
        with Image.open(file) as image:
            image = image.convert("RGB")
            images.append(resize_image(image, image_size, "squash"))
    return np.stack(images)


def run_extraction(
    network: FrozenNetwork, images: np.ndarray, folder: Path
) -> float:
    """Images/s of what `extract` does with the views of photographs."""

    order = Order(COUNT, views=2, block=COUNT)

    def load(start: int, stop: int) -> np.ndarray:
        rows, view_numbers = order.locate(start, stop)
        digests = np.stack([rows, rows], axis=1).astype("u8")
        some = images[rows % len(images)]
        return augment_images(some, digests, view_numbers, **AUGMENT)

    outs = []
    for i, shape in enumerate(network.outputs):
        paths = [folder / f"{i}-{view}.npy" for view in range(2)]
        for path in paths:
            dtype = "float16" if len(shape) > 1 else "float32"
            create_array(path, (COUNT, *shape), dtype)
        outs.append(ActivationWriter(paths, order, np.arange(COUNT)))
    start = time.perf_counter()
    network.run(load, 2 * COUNT, outs, start=COUNT)
    return COUNT / (time.perf_counter() - start)


def run_benchmark_app(model: Path, precision: str, batch_size: int) -> float:
    """Images/s of OpenVINO's own tool, which feeds nothing new."""
    output = run(
        *("benchmark_app", "-m", model, "-d", "CPU", "-t", SECONDS),
        *("-hint", "throughput", "-infer_precision", precision),
    )
    batches = int(re.search(r"Count: +(\d+)", output)[1])
    seconds = float(re.search(r"Duration: +([\d.]+) ms", output)[1]) / 1000
    return batches * batch_size / seconds


def measure(options: argparse.Namespace) -> Iterator[list[str]]:
    size = options.image_size
    backbone = build_backbone("EfficientNetB0", "file", options.weights, size)
    pooled = keras.Model(backbone.input, pool_blocks(backbone))
    part = get_part(pooled, IMAGE, find_tap(backbone), POOLED)
    images = load_photographs(options.data / "train", size)
    row = ["frozen passes, augmentation included"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for precision in ("auto", "float32"):
            network = freeze_model(part, precision, "uint8")
            model = folder / "network.xml"
            openvino.save_model(
                convert_to_openvino(part, "uint8", network.batch_size),
                model,
                compress_to_fp16=False,
            )
            hint = {"bfloat16": "bf16", "float32": "f32"}[network.precision]
            run_extraction(network, images, folder)  # compiles
            rounds = [
                (
                    run_benchmark_app(model, hint, network.batch_size),
                    run_extraction(network, images, folder),
                )
                for _ in range(options.rounds)
            ]
            theirs, ours = (
                statistics.median(r) for r in zip(*rounds, strict=True)
            )
            ratio = statistics.median(b / a for a, b in rounds)
            if precision == "auto":
                row += [f"benchmark_app, {theirs:.0f} images/s"]
            row += [f"{ours:.0f} images/s", f"{ratio:.2f}"]
    yield row
