"""Small data, and the real pipeline shrunk to it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parent.parent
STAGES = [
    "check",
    "prepare",
    "extract",
    "head",
    "prefix",
    "finetune",
    "evaluate",
    "report",
]
# What requirements-scale.txt and no other brings, what a browser takes, and a
# backend of Keras that no list names.
OPTIONAL = ("boto3", "dvc_s3", "jax", "moto", "playwright", "ray", "torch")

RESULTS = ["evaluate", "report"]

# What a change re-runs after `check`; `finetune.blocks` is changed elsewhere.
RERUNS = [
    ({"finetune__batch_size": 16}, ["finetune", *RESULTS]),
    ({"evaluate__top_k": 2}, RESULTS),
    ({"export__tolerance": 0.03}, []),
    ({"head__dropout": 0.1}, ["head", "finetune", *RESULTS]),
    ({"augment__rotation": 0.01}, STAGES[2:]),
    ({"prepare__seed": 1}, STAGES[1:]),
]


def draw_stripes(
    kind: str, rng: np.random.Generator, side: int, width: int = 6
) -> Image.Image:
    """Stripes, across, down or both, in a light of its own."""
    y, x = (np.mgrid[:side, :side] + rng.integers(12)) // width % 2
    pattern = {"across": y, "both": x ^ y, "down": x}[kind]
    spots = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    light = np.asarray(spots.resize((side, side), Image.Resampling.BILINEAR))
    noise = rng.normal(0, 20, (side, side, 3))
    pixels = 130 * pattern[..., None] + 0.4 * light + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photographs(
    folder: Path, each: int = 10, seed: int = 0, widths: tuple = (6,)
) -> None:
    """Class folders of striped JPEGs of different sizes."""
    rng = np.random.default_rng(seed)
    for kind in ("across", "both", "down"):
        (folder / kind).mkdir(parents=True)
        for number in range(each):
            side, width = rng.integers(40, 90), rng.choice(widths)
            image = draw_stripes(kind, rng, side, width)
            image.save(folder / kind / f"{number:02d}.jpg")


class Project:
    """A copy of this repository to run DVC in."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PATH": path, **env},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def dvc(self, *arguments: str, **env: str) -> str:
        """Output of a DVC command that must succeed."""
        done = self.run(sys.executable, "-m", "dvc", *arguments, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def repro(self, *arguments: str, **env: str) -> list[str]:
        """The stages that DVC says it ran; `said` is all that was said."""
        self.said = self.dvc("repro", *arguments, **env)
        return [
            line.split("'")[1]
            for line in self.said.splitlines()
            if line.startswith("Running stage")
        ]

    def set(self, **values: object) -> None:
        """Changes params.yaml: section__key=value, or seed=value."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for name, value in values.items():
            *sections, key = name.split("__")
            section = params[sections[0]] if sections else params
            section[key] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder)
        return Project(folder)


@pytest.fixture(scope="session")
def fresh_project(tmp_path_factory) -> Project:
    """The tracked files, with small parameters and photographs; not yet run."""
    folder = tmp_path_factory.mktemp("fresh") / "project"
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True)
    for name in files.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for lock in ("dvc.lock", "export/dvc.lock"):
        (folder / lock).unlink(missing_ok=True)
    project = Project(folder)
    write_photographs(folder / "data" / "raw")
    (folder / "data" / "raw" / "notes.txt").write_text("not a class")
    project.set(
        prepare__source="folder",
        prepare__path="data/raw",
        prepare__image_size=32,
        extract__views=2,
        # A poor head, so that fine-tuning has something to add.
        head__epochs=1,
        head__learning_rate=0.0001,
        finetune__blocks=1,
        finetune__views=2,
        finetune__epochs=2,
        finetune__learning_rate=0.002,
        finetune__batch_size=8,
    )
    for command in (
        "git init --quiet",
        "git config user.name tester",
        "git config user.email tester@example.com",
        "git add --all --force",  # the photographs, which Git ignores
        "git commit --quiet --message start",
    ):
        subprocess.run(command.split(), cwd=folder, check=True)
    return project


@pytest.fixture(scope="session")
def reproduced(fresh_project, tmp_path_factory) -> Project:
    """After one `dvc repro`, which nothing may leave or write to $HOME.

    Its `home` and `sockets` are for looking at afterwards, and `spied` is the
    environment that has them. Copy it to change it.
    """
    project = fresh_project.copy(tmp_path_factory.mktemp("run") / "project")
    project.home = tmp_path_factory.mktemp("home")
    spy = tmp_path_factory.mktemp("spy")
    project.sockets = spy / "sockets.log"
    # Every Python that DVC or a stage starts reports where it connects to.
    (spy / "sitecustomize.py").write_text(
        "import sys\n"
        "def report(event, args):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'):\n"
        f"        with open({str(project.sockets)!r}, 'a') as log:\n"
        "            print(event, args[-1], sys.argv, file=log)\n"
        "sys.addaudithook(report)\n"
    )
    project.spied = {
        "HOME": str(project.home),
        "PYTHONPATH": str(spy),
        "CI": "",
    }
    project.ran = project.repro(**project.spied)
    return project


@pytest.fixture(scope="session")
def exported(reproduced, tmp_path_factory) -> Project:
    """After `dvc repro export/dvc.yaml`, too, spied upon like `reproduced`."""
    folder = tmp_path_factory.mktemp("exported") / "project"
    project = reproduced.copy(folder)
    project.ran = project.repro("export/dvc.yaml", **reproduced.spied)
    return project
