"""Copies of this project to run with other parameters; the tests use them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import yaml

ROOT = Path(__file__).parent.parent
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
PIPELINES = ["dvc.yaml", "export/dvc.yaml"]

# The guide's recipe: 25 head epochs, then 4 with the last block thawed; on all
# images, as the guide sees them.
RECIPE = {
    "prepare": {"source": "folder", "duplicates": "keep"},
    "augment": {"rotation": 0.15, "translation": 0.1, "horizontal_flip": True},
    "extract": {"views": 8},
    "head": {"epochs": 25, "batch_size": 64},
    "finetune": {"views": 8, "epochs": 4, "batch_size": 64, "blocks": 1},
}


def read_stages(pipeline: str) -> list[str]:
    """Names of the stages in a dvc.yaml, in its order."""
    return list(yaml.safe_load((ROOT / pipeline).read_text())["stages"])


STAGES = [stage for pipeline in PIPELINES for stage in read_stages(pipeline)]


def make_environment(**env: str) -> dict[str, str]:
    """This program's, with the programs of its virtual environment first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **env}


def run(*command: object, cwd: Path = ROOT) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=make_environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


def list_ran(said: str) -> list[str]:
    """The stages that `dvc repro` or `dvc exp run` says it ran."""
    return [
        line.split("'")[1]
        for line in said.splitlines()
        if line.startswith("Running stage")
    ]


class Project:
    """A copy of this project, to run DVC in."""

    timeout: float | None = None  # most seconds that a command may take

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def create(cls, folder: Path) -> Self:
        """The tracked files as they are on disk, without results."""
        for name in run("git", "ls-files").splitlines():
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        project = cls(folder)
        project.forget_runs()
        run("git", "init", "--quiet", cwd=folder)
        return project

    def copy(self, folder: Path) -> Self:
        """Another such project, with all that this one has."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return type(self)(folder)

    def forget_runs(self) -> None:
        """Removes DVC's lock files, as if no stage ever ran."""
        for pipeline in PIPELINES:
            lock = (self.folder / pipeline).with_suffix(".lock")
            lock.unlink(missing_ok=True)

    def set(self, sections: dict | None = None, /, **values: object) -> None:
        """Changes params.yaml: sections with some of their keys, or values.

        A value is named `key` or `section__key`.
        """
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for name, value in ((sections or {}) | values).items():
            *outer, key = name.split("__")
            inside = params[outer[0]] if outer else params
            if isinstance(value, dict):
                inside[key].update(value)
            else:
                inside[key] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def use(self, data: Path, weights: Path, image_size: int) -> None:
        self.set(
            {
                "prepare": {"path": str(data), "image_size": image_size},
                "backbone": {"file": str(weights)},
            }
        )

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess:
        """A command in the folder, whether or not it succeeds."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=make_environment(**env),
            capture_output=True,
            text=True,
            timeout=self.timeout,
        )

    def start(
        self, *command: str, stderr: int = subprocess.PIPE, **env: str
    ) -> subprocess.Popen:
        """A command in the folder, in a session of its own, not waited for."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=make_environment(**env),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def dvc(self, *arguments: str, **env: str) -> str:
        """Output of a DVC command.

        Raises:
            RuntimeError: The command failed; with all that it said.
        """
        done = self.run(sys.executable, "-m", "dvc", *arguments, **env)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout

    def repro(self, *arguments: str, **env: str) -> list[str]:
        """The stages that DVC says it ran; `said` is all that was said."""
        self.said = self.dvc("repro", *arguments, **env)
        return list_ran(self.said)

    def time_repro(self, *arguments: str) -> float:
        """Seconds that `dvc repro` takes."""
        start = time.perf_counter()
        self.repro(*arguments)
        return time.perf_counter() - start

    def list_hashes(self) -> dict[str, str]:
        """Of every output, by its path, as DVC's lock files have them."""
        locks = [(self.folder / x).with_suffix(".lock") for x in PIPELINES]
        return {
            out["path"]: out["md5"]
            for lock in locks
            if lock.exists()
            for stage in yaml.safe_load(lock.read_text())["stages"].values()
            for out in stage["outs"]
        }
