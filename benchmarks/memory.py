"""Each stage's own memory, with many images against few.

    python -m benchmarks.memory [--few 3000] [--many 30000]

Own memory is what the kernel counts as anonymous: arrays that are mapped from
files are not among it, the page cache holds those. Prints JSON: for each stage
its peak in MiB with few and with many images. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.project import STAGES, Project

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
        project = Project(folder)
        project.set(SMALL)
        write_photographs(folder / "data" / "raw", count)
        return {stage: measure_stage(stage, folder) for stage in STAGES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--few", type=int, default=3000)
    parser.add_argument("--many", type=int, default=30000)
    options = parser.parse_args()
    few, many = measure_all(options.few), measure_all(options.many)
    print(json.dumps({stage: [few[stage], many[stage]] for stage in STAGES}))


if __name__ == "__main__":
    main()
