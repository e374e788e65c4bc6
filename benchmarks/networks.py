"""What a network takes, each at its own image size: a Markdown table.

    python -m benchmarks.networks [EfficientNetB7 ...]

Weights are random and photographs are made: neither changes what they take.

- Images/s are those of the frozen pass, in the precision of training views.
- Seconds are those of an epoch of 1,000 photographs by the number of thawed
  blocks, in batches of 16.
- Memory is the own memory of `extract`, with few photographs and with four
  times as many.
- Disk is what 1,000 photographs take: packed, and the kept outputs of a view.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.memory import measure_stage, write_photographs
from benchmarks.project import Project, run
from thaw.data.efficientnet import IMAGE, POOLED, VARIANTS
from thaw.frozen.engines import freeze_model
from thaw.network.backbone import build_backbone
from thaw.network.backend import keras
from thaw.network.parts import get_part
from thaw.network.pooling import pool_blocks
from thaw.network.thawing import find_tap, list_blocks

NETWORKS = [
    "EfficientNetB0",
    "EfficientNetB2",
    "EfficientNetB4",
    "EfficientNetB7",
    "EfficientNetV2B0",
    "EfficientNetV2S",
]
DEPTHS = (1, 2, 4, 8, "half")
FEW, MANY = 60, 240
SECONDS = 10


def measure_pass(name: str) -> tuple[float, int, int]:
    """Images/s; bytes of the outputs of an image; half of the blocks."""
    size = VARIANTS[name].image_size
    backbone = build_backbone(name, None, "", size)
    pooled = keras.Model(backbone.input, pool_blocks(backbone))
    part = get_part(pooled, IMAGE, find_tap(backbone), POOLED)
    network = freeze_model(part, "auto", "uint8")
    count = 4 * network.batch_size
    images = np.random.default_rng(0).integers(
        0, 256, (count, size, size, 3), np.uint8
    )
    outs = [np.empty((count, *s), np.float32) for s in network.outputs]

    def advance() -> None:
        network.run(lambda start, stop: images[start:stop], count, outs)

    advance()  # compiles
    start, passes = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        advance()
        passes += 1
    seconds = time.perf_counter() - start
    tap, pooled = (math.prod(shape) for shape in network.outputs)
    half = len(list_blocks(backbone)) // 2
    return passes * count / seconds, 2 * tap + 4 * pooled, half


def measure_epoch(name: str, blocks: int) -> float:
    """Seconds of 1,000 photographs."""
    output = run(
        *(sys.executable, "-m", "benchmarks.claims.cost", name, blocks),
        VARIANTS[name].image_size,
    )
    return 1000 / json.loads(output.splitlines()[-1])["images_per_second"]


def measure_memory(name: str, count: int) -> float:
    """MiB of `extract`."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder))
        project.set(
            {
                "prepare": {
                    "source": "folder",
                    "path": "data/raw",
                    "image_size": VARIANTS[name].image_size,
                },
                "backbone": {"name": name, "weights": None},
                "extract": {"views": 1},
                "finetune": {"views": 1},
            }
        )
        write_photographs(project.folder / "data/raw", count)
        project.repro("prepare")
        return measure_stage("extract", project.folder)


def measure_network(name: str) -> Iterator[str]:
    """The cells of a row."""
    size = VARIANTS[name].image_size
    speed, kept, half = measure_pass(name)
    yield f"{name.removeprefix('EfficientNet')}, {size} px"
    yield f"{speed:.1f}"
    for depth in DEPTHS:
        yield f"{measure_epoch(name, half if depth == 'half' else depth):.0f}"
    few, many = measure_memory(name, FEW), measure_memory(name, MANY)
    yield f"{few:.0f}, {many:.0f}"
    yield f"{3 * size**2 / 1000:.0f}, {kept / 1000:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    names = parser.parse_args().networks
    depths = " | ".join(f"{d}, s" for d in DEPTHS)
    print(
        f"| | images/s | {depths} | {FEW} and {MANY} photographs, MiB | "
        f"packed and kept, MB |\n|---|{'---|' * (len(DEPTHS) + 3)}"
    )
    for name in names:
        print(f"| {' | '.join(measure_network(name))} |", flush=True)


if __name__ == "__main__":
    main()
