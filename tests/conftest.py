"""Small data, and the real pipeline shrunk to it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from programs import run
from samples import FACTS_OF_IMAGES, IMAGES, WIDTHS, read, write_photographs

from benchmarks import project
from benchmarks.project import ROOT, list_ran

STAGES = project.read_stages("dvc.yaml")
RESULTS = ["evaluate", "report"]

# What requirements-scale.txt and no other brings, what a browser takes, and a
# backend of Keras that no list names.
OPTIONAL = ("boto3", "dvc_s3", "jax", "moto", "playwright", "ray", "torch")

# What a change re-runs after `check`; `finetune.blocks` is changed elsewhere.
RERUNS = [
    ({"finetune__epochs": 3}, ["finetune", *RESULTS]),
    ({"finetune__batch_size": 16}, ["finetune", *RESULTS]),
    ({"evaluate__top_k": 2}, RESULTS),
    ({"export__tolerance": 0.03}, []),
    ({"head__features": "all"}, ["head", "audit", "finetune", *RESULTS]),
    ({"augment__rotation": 0.01}, STAGES[2:]),
    ({"prepare__seed": 1}, STAGES[1:]),
]

# Files that take longest, in the order in which two workers take them: one that
# runs the pipeline, one that does not, and so on.
LONG = (
    "test_pipeline.py",
    "test_train.py",
    "test_network.py",
    "test_survival.py",
    "test_frozen.py",
    "test_export.py",
    "test_commands.py",
    "test_run.py",
    "test_report.py",
)


def slow(*rows: object) -> list:
    """Rows of parameters that `make quick` leaves out."""
    mark = pytest.mark.slow
    return [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=mark)
        for row in rows
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what runs stages, and has the long files start first."""
    for item in items:
        if "fresh_project" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


class Project(project.Project):
    """A copy of this project whose commands have a time limit."""

    timeout = 900  # a whole run takes 60 s on two quiet cores


@pytest.fixture(scope="session")
def fresh_project(tmp_path_factory) -> Project:
    """The tracked files, with small parameters and photographs; not yet run."""
    folder = tmp_path_factory.mktemp("fresh") / "project"
    project = Project.create(folder)
    write_photographs(folder / "data" / "raw")
    (folder / "data" / "raw" / "notes.txt").write_text("not a class")
    project.set(
        prepare__source="folder",
        prepare__path="data/raw",
        prepare__image_size=32,
        extract__views=2,
        # A poor head, so that fine-tuning has something to add.
        head__features="last",
        head__epochs=1,
        head__learning_rate=0.1,
        head__l2=0.0,
        finetune__blocks=1,
        finetune__views=2,
        finetune__epochs=2,
        finetune__learning_rate=0.002,
        finetune__batch_size=8,
    )
    run("git", "config", "user.name", "tester", cwd=folder)
    run("git", "config", "user.email", "tester@example.com", cwd=folder)
    # The photographs, too, which Git ignores.
    run("git", "add", "--all", "--force", cwd=folder)
    run("git", "commit", "--quiet", "--message", "start", cwd=folder)
    return project


# Of Python's `sitecustomize`: each program says where it connects to.
SPY = """
import sys
def report(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with open({log!r}, "a") as log:
            print(event, args[-1], sys.argv, file=log)
sys.addaudithook(report)
"""


@pytest.fixture(scope="session")
def whole_run(fresh_project, tmp_path_factory) -> Path:
    """A folder with a project after one `dvc repro`: one for all workers."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has a folder below it
    folder = root / "whole_run"
    with FileLock(f"{folder}.lock"):
        if not (folder / "said.txt").exists():
            for name in ("home", "spy"):
                (folder / name).mkdir(parents=True)
            spy = SPY.format(log=str(folder / "sockets.log"))
            (folder / "spy/sitecustomize.py").write_text(spy)
            project = fresh_project.copy(folder / "project")
            project.repro(**spy_on(folder))
            (folder / "said.txt").write_text(project.said)
    return folder


def spy_on(whole_run: Path) -> dict[str, str]:
    """The environment of a run that is spied upon."""
    return {
        "HOME": str(whole_run / "home"),
        "PYTHONPATH": str(whole_run / "spy"),
        "CI": "",
    }


@pytest.fixture(scope="session")
def reproduced(whole_run, tmp_path_factory) -> Project:
    """After one `dvc repro`, which nothing may leave or write to $HOME.

    Its `home` and `sockets` are for looking at afterwards, `spied` is the
    environment that has them; `said` is what the run said, and `ran` the stages
    that it ran. Copy it to change it.
    """
    project = Project(whole_run / "project").copy(
        tmp_path_factory.mktemp("run") / "project"
    )
    project.home = whole_run / "home"
    project.sockets = whole_run / "sockets.log"
    project.spied = spy_on(whole_run)
    project.said = (whole_run / "said.txt").read_text()
    project.ran = list_ran(project.said)
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
    from thaw.network.backbone import build_backbone

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
    """24 images of noise in each split, of three classes."""
    from thaw.data.dataset import Dataset
    from thaw.files.text import write_json

    for split in ("train", "validation", "test"):
        (tmp_path / "prepared" / split).mkdir(parents=True)
        np.save(tmp_path / "prepared" / split / "images.npy", IMAGES)
        np.save(tmp_path / "prepared" / split / "facts.npy", FACTS_OF_IMAGES)
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
    """A copy with its results in Git; tests may change its predictions."""
    project = reproduced.copy(tmp_path_factory.mktemp("committed") / "project")
    commit(project, "results")
    return project


def commit(project, message):
    """Commits all that Git does not ignore."""
    run("git", "add", "--all", cwd=project.folder)
    run("git", "commit", "--quiet", "-m", message, cwd=project.folder)


@pytest.fixture
def raw(tmp_path):
    """Photographs in train and test folders, no two alike."""
    write_photographs(tmp_path / "raw" / "train", each=12, widths=WIDTHS)
    write_photographs(tmp_path / "raw" / "test", each=4, seed=1, widths=WIDTHS)
    return tmp_path / "raw"


def list_checkpoints(project):
    return sorted((project.folder / ".dvc/tmp/thaw").glob("*-*"))


@pytest.fixture
def in_the_project(monkeypatch):
    """Where prepare.path and backbone.file are."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def as_stage(fresh_project, tmp_path, monkeypatch):
    """Sets what DVC sets for a stage, in a copy of the project."""
    project = fresh_project.copy(tmp_path / "project")

    def enter(stage, folder=project.folder):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("DVC_STAGE", stage)
        monkeypatch.setenv("DVC_ROOT", str(project.folder))
        return project

    return enter
