"""What a change of data costs: new photographs, and a corrected label.

    python -m benchmarks.increment [--count 10000] [--new 100]

EfficientNetB0 at 224 px, four views. Prints seconds and own memory of
`prepare`, `extract` and `prefix` under `dvc repro`: of the first run, of one
that finds nothing new, of one with new photographs, and of one with a single
photograph under another label.
"""

import argparse
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.memory import write_photographs
from benchmarks.project import Project

STAGES = ("prepare", "extract", "prefix")
OPTIONS = {
    "prepare": {"source": "folder", "path": "data/raw", "image_size": 224},
    "extract": {"views": 4},
    "finetune": {"views": 4, "blocks": 2},
}


def measure_stage(project: Project, stage: str) -> tuple[float, float]:
    """Seconds that `dvc repro` takes, and MiB of the stage's own memory."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    start, peak = time.perf_counter(), 0
    dvc = psutil.Popen(command, cwd=project.folder, stdout=-3)
    while dvc.poll() is None:
        with suppress(psutil.Error, OSError):
            for process in dvc.children(recursive=True):
                status = Path(f"/proc/{process.pid}/status").read_text()
                for line in status.splitlines():
                    if line.startswith("RssAnon"):
                        peak = max(peak, int(line.split()[1]))
        time.sleep(0.02)
    if dvc.returncode:
        sys.exit(f"{stage} failed")
    return time.perf_counter() - start, peak / 1024


def measure_all(project: Project, what: str) -> float:
    """Prints a line; gives the seconds of all three stages."""
    project.repro("check")
    measured = []
    for stage in STAGES:
        if stage == "prefix":
            project.repro("depth")  # which it needs
        measured.append(measure_stage(project, stage))
    seconds, memory = zip(*measured, strict=True)
    cells = [
        f"{s:.1f} s, {m:.0f} MiB" for s, m in zip(seconds, memory, strict=True)
    ]
    print(
        f"| {what} | {' | '.join(cells)} | {sum(seconds):.1f} s |", flush=True
    )
    return sum(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.increment",
        description=__doc__.split("\n")[0],
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--new", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = Project.create(folder)
        project.set(OPTIONS)
        raw, later = folder / "data/raw", folder / "later"
        write_photographs(raw, options.count + options.new)
        files = sorted(raw.glob("*/*"), key=lambda path: path.name)
        later.mkdir()
        for file in files[options.count :]:
            file.rename(later / f"{file.parent.name}-{file.name}")
        print(f"| {options.count:,} photographs | {' | '.join(STAGES)} | all |")
        print("|---|---|---|---|---|")
        first = measure_all(project, "first run")
        files[0].unlink()
        nothing = measure_all(project, "one fewer")
        for file in later.iterdir():
            label, _, own = file.name.partition("-")
            file.rename(raw / label / own)
        new = measure_all(project, f"{options.new} new")
        files[1].rename(files[2].parent / files[1].name)
        measure_all(project, "one under another label")
        share = (new - nothing) / first
        print(f"\nnew ones, beyond a run for nothing: {share:.1%} of the first")


if __name__ == "__main__":
    main()
