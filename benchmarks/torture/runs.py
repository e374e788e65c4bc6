"""Runs of a small project: started, cut off, compared."""

import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from benchmarks.project import Project

# The default data, and a little of everything.
QUICK = {
    "extract": {"views": 3},
    "head": {"epochs": 10},
    "finetune": {"views": 3, "epochs": 6},
    "export": {"formats": ["saved_model", "onnx"]},
}


def make_project(folder: Path) -> Project:
    project = Project.create(folder)
    project.set(QUICK)
    return project


def start(project: Project, *arguments: str) -> subprocess.Popen:
    """Starts Python, all that it says in one stream."""
    return project.start(sys.executable, *arguments, stderr=subprocess.STDOUT)


def list_stages(dvc: subprocess.Popen) -> list[psutil.Process]:
    """What it has running."""
    try:
        return psutil.Process(dvc.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


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
