"""Each stage's own memory, with 30,000 images against 3,000.

Own memory is what the kernel counts as anonymous: arrays that are mapped from
files are not among it, the page cache holds those. Linux only.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.project import STAGES, Project

FEW, MANY = 3000, 30000
SMALL = {
    "prepare": {"source": "folder", "path": "data/raw", "image_size": 32},
    "extract": {"views": 2},
    "head": {"epochs": 2},
    "finetune": {"views": 2, "epochs": 1, "blocks": 1},
}


def write_photographs(folder: Path, count: int) -> None:
    """Ten classes of JPEGs, 320 x 240, no two of them equal."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name = folder / f"class {number % 10}"
        name.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((320, 240))
        image.save(name / f"photograph {number:06d}.jpg")


def measure_stage(stage: str, folder: Path) -> float:
    """Its peak, in MiB, looked at every few milliseconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon"):
                peak = max(peak, int(line.split()[1]))
        time.sleep(0.005)
    if process.returncode:
        sys.exit(f"{stage} failed")
    return peak / 1024


def measure_all(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = Project.create(folder)
        project.set(SMALL)
        write_photographs(folder / "data" / "raw", count)
        return {stage: measure_stage(stage, folder) for stage in STAGES}


def measure(options: argparse.Namespace) -> Iterator[list[str]]:
    few, many = measure_all(FEW), measure_all(MANY)
    for stage in STAGES:
        yield [
            f"own memory of {stage}, {MANY:,} images",
            f"{FEW:,} images, {few[stage]:.0f} MiB",
            f"{many[stage]:.0f} MiB",
            f"{many[stage] / few[stage]:.2f}",
            *("", ""),
        ]
