"""Small data, and the real pipeline shrunk to it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from samples import IMAGES, WIDTHS, read, write_photographs

from thaw.data.dataset import Dataset
from thaw.files.text import write_json
from thaw.network.backbone import build_backbone

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


@pytest.fixture(scope="module")
def checkpoint():
    (weights,) = (ROOT / "weights").glob("*.weights.h5")
    return build_backbone("EfficientNetB0", "file", weights, 32)


@pytest.fixture
def b0(checkpoint):
    """The embedded checkpoint, whatever an earlier test made of it."""
    weights = checkpoint.get_weights()
    yield checkpoint
    checkpoint.set_weights(weights)


@pytest.fixture
def dataset(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / "prepared" / split).mkdir(parents=True)
        np.save(tmp_path / "prepared" / split / "images.npy", IMAGES)
    write_json(tmp_path / "prepared" / "classes.json", ["a", "b", "c"])
    return Dataset(tmp_path / "prepared")


@pytest.fixture(scope="module")
def results(reproduced):
    """Details of `evaluate`, the table, labels and probabilities."""
    folder = reproduced.folder
    classes = json.loads((folder / "data/prepared/classes.json").read_text())
    table = read(folder / "metrics/predictions.csv")
    labels = np.array([classes.index(row["actual"]) for row in table])
    probabilities = {
        name: np.load(folder / f"metrics/probabilities/{name}.npy")
        for name in ("head", "finetuned")
    }
    scores = json.loads((folder / "metrics/details/evaluate.json").read_text())
    return scores, table, labels, probabilities


def thaw(project, *arguments, **env):
    done = project.run(sys.executable, "-m", "thaw", *arguments, **env)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def committed(reproduced, tmp_path_factory):
    """With its results in Git, and its predictions free to change."""
    project = reproduced.copy(tmp_path_factory.mktemp("committed") / "project")
    for command in (["add", "--all"], ["commit", "--quiet", "-m", "results"]):
        subprocess.run(["git", *command], cwd=project.folder, check=True)
    return project


@pytest.fixture
def raw(tmp_path):
    """Photographs in train and test folders, no two alike."""
    write_photographs(tmp_path / "raw" / "train", each=12, widths=WIDTHS)
    write_photographs(tmp_path / "raw" / "test", each=4, seed=1, widths=WIDTHS)
    return tmp_path / "raw"


def list_checkpoints(project):
    return sorted((project.folder / ".dvc/tmp/thaw").glob("*-*"))


def start(project, *command, **env):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        command,
        cwd=project.folder,
        env={**os.environ, "PATH": path, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_until(program, words):
    for line in program.stdout:
        if words in line:
            return
    raise AssertionError(program.stderr.read())


@pytest.fixture
def in_the_project(monkeypatch):
    """Where prepare.path and backbone.file are."""
    monkeypatch.chdir(ROOT)
