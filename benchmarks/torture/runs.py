"""Runs of a small project: started, cut off, compared."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

from benchmarks.project import PIPELINES, Project

# The default data, and a little of everything.
QUICK = {
    "extract": {"views": 3},
    "head": {"epochs": 10},
    "finetune": {"views": 3, "epochs": 6},
    "export": {"formats": ["saved_model", "onnx"]},
}


def make_project(folder: Path) -> Project:
    project = Project(folder)
    project.set(QUICK)
    return project


def start(project: Project, *arguments: str, **options) -> subprocess.Popen:
    """Starts Python in a session of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=project.folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def list_stages(dvc: subprocess.Popen) -> list[psutil.Process]:
    """What it has running."""
    try:
        return psutil.Process(dvc.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def list_hashes(project: Project) -> dict[str, str]:
    """Of every output, as the locks have them."""
    locks = [
        yaml.safe_load((project.folder / x).with_suffix(".lock").read_text())
        for x in PIPELINES
    ]
    return {
        out["path"]: out["md5"]
        for lock in locks
        for stage in lock["stages"].values()
        for out in stage["outs"]
    }


def forget_results(project: Project) -> None:
    project.forget_runs()
    for name in ("data", "models", "metrics", "plots", ".dvc"):
        for path in (project.folder / name).iterdir():
            if path.name in ("cache", "tmp"):
                shutil.rmtree(path)
    subprocess.run(
        ["git", "clean", "-fdXq", "data", "models", "metrics", "plots"],
        cwd=project.folder,
        check=True,
    )


def list_leftovers(project: Project) -> list[str]:
    """Half-written files, and checkpoints that should be gone."""
    kept = (project.folder / ".dvc/tmp/thaw").glob("*")
    half = project.folder.rglob("*unfinished*")
    return [str(path) for path in (*kept, *half)]
