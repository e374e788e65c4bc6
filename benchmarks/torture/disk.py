"""Disks too small for the results."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.torture.runs import make_project, start

SIZES = (40, 60, 80, 100, 130, 160, 200)  # MB; the whole run needs more


def fill_disk(folder: Path, options) -> Iterator[str]:
    """Runs on small disks; who notices, and what is left."""
    if os.geteuid():
        yield "not run: making small disks needs root"
        return
    original = make_project(folder / "project")
    for size in SIZES:
        disk = folder / f"disk-{size}"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", disk]
        if subprocess.run(mount, capture_output=True).returncode:
            yield "not run: no disk can be mounted here"
            return
        try:
            yield f"{size} MB: {run_there(original, disk / 'project')}"
        finally:
            subprocess.run(["umount", disk], check=True)


def run_there(original, folder: Path) -> str:
    output = start(original.copy(folder), "-m", "dvc", "repro").communicate()[0]
    half = [str(p) for p in folder.rglob("*unfinished*")]
    lines = [x for x in output.splitlines() if x.startswith(("thaw:", "ERROR"))]
    return f"{lines or 'enough'}; half-written: {half or 'none'}" + (
        "; a traceback" if "Traceback" in output else ""
    )
