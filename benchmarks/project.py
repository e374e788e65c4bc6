"""Copies of this project to run with other parameters."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent

PIPELINES = ["dvc.yaml", "export/dvc.yaml"]
STAGES = [
    stage
    for pipeline in PIPELINES
    for stage in yaml.safe_load((ROOT / pipeline).read_text())["stages"]
]

# The guide's recipe: 25 head epochs, then 4 with the last block thawed; on all
# images, as the guide sees them.
RECIPE = {
    "prepare": {"source": "folder", "duplicates": "keep"},
    "augment": {"rotation": 0.15, "translation": 0.1, "horizontal_flip": True},
    "extract": {"views": 8},
    "head": {"epochs": 25, "batch_size": 64},
    "finetune": {"views": 8, "epochs": 4, "batch_size": 64, "blocks": 1},
}


def run(*command: object, cwd: Path = ROOT) -> str:
    """Standard output of a command that must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


class Project:
    """The tracked files as they are now, without results, in a new folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in run("git", "ls-files").splitlines():
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        self.forget_runs()
        run("git", "init", "--quiet", cwd=folder)

    def forget_runs(self) -> None:
        """Has DVC know of none."""
        for pipeline in PIPELINES:
            lock = (self.folder / pipeline).with_suffix(".lock")
            lock.unlink(missing_ok=True)

    def set(self, changes: dict) -> None:
        """Changes params.yaml: values, or sections with some of theirs."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            if isinstance(value, dict):
                params[key].update(value)
            else:
                params[key] = value
        path.write_text(yaml.safe_dump(params))

    def use(self, data: Path, weights: Path, image_size: int) -> None:
        self.set(
            {
                "prepare": {"path": str(data), "image_size": image_size},
                "backbone": {"file": str(weights)},
            }
        )

    def repro(self, *targets: str) -> float:
        """Seconds that `dvc repro` took."""
        start = time.perf_counter()
        run(sys.executable, "-m", "dvc", "repro", *targets, cwd=self.folder)
        return time.perf_counter() - start
