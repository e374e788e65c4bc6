"""Runs that are cut off, crowded out or led astray, and what is left."""

import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import OPTIONAL, list_checkpoints
from programs import finish, read_until, wait_until
from test_network import write_lambda

from benchmarks.torture.runs import list_stages


def start_over(reproduced, folder):
    """A copy in which no stage ever ran."""
    project = reproduced.copy(folder)
    project.forget_runs()
    shutil.rmtree(project.folder / ".dvc/cache")
    return project


def kill(dvc, *also):
    """`kill -9` of DVC and of some of what it runs; the rest ends by itself."""
    stages = list_stages(dvc)
    for program in (dvc, *(stages[i] for i in also)):
        program.kill()
    _, alive = psutil.wait_procs(stages, timeout=60)
    finish(dvc)
    assert not alive


def check_same(project, reproduced, target):
    hashes = project.list_hashes()
    assert target in hashes
    assert hashes.items() <= reproduced.list_hashes().items()
    assert list_checkpoints(project) == []
    assert not list(project.folder.rglob("*unfinished*"))


# Of Python's `sitecustomize`: as if these were not installed.
BLOCK = f"""
import sys
class Blocked:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}; blocked")
sys.meta_path.insert(0, Blocked)
"""


def has_trained(project, stage, dvc):
    """Whether a stage that DVC runs has kept an epoch."""
    assert dvc.poll() is None, finish(dvc)
    kept = project.folder / ".dvc/tmp/thaw"
    return any(kept.glob(f"{stage}-*/training.npz"))


def test_a_killed_run_resumes_without_any_optional_package(
    reproduced, tmp_path
):
    """`head` and `finetune` resume after the epoch that they had kept."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    env = {"PYTHONPATH": str(tmp_path)}
    project = start_over(reproduced, tmp_path / "project")
    imported = project.run(sys.executable, "-c", "import ray", **env)
    assert "No module named 'ray'; blocked" in imported.stderr
    for stage in ("head", "finetune"):
        dvc = project.start(sys.executable, "-m", "dvc", "repro", **env)
        wait_until(partial(has_trained, project, stage, dvc))
        kill(dvc, -1)
    output = project.dvc("repro", "report", **env)
    assert "of 2 epochs" in output and "stages.head" not in output
    check_same(project, reproduced, "report.html")


def test_a_killed_stage_resumes_to_the_same_hashes(reproduced, tmp_path):
    """The stage alone is killed; DVC fails."""
    project = start_over(reproduced, tmp_path / "project")
    dvc = project.start(sys.executable, "-m", "dvc", "repro", "extract")
    read_until(dvc, "running efficientnetb0")
    stages = list_stages(dvc)
    stages[0].kill()
    _, errors = finish(dvc)
    assert dvc.returncode and "extract" in errors
    _, alive = psutil.wait_procs(stages, timeout=60)
    assert not alive
    project.dvc("repro", "extract")
    hashes = project.list_hashes()
    assert "data/features" in hashes
    assert hashes.items() <= reproduced.list_hashes().items()
    assert not list(project.folder.rglob("*unfinished*"))


def test_a_stage_ends_with_the_dvc_that_started_it(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    project.set(finetune__epochs=5000)
    stage = ["-m", "stages.finetune"]
    program = (
        "import subprocess, sys; "
        f"subprocess.run([sys.executable, *{stage}], check=False)"
    )
    dvc = project.start(sys.executable, "-c", program, DVC_STAGE="finetune")
    read_until(dvc, "epoch  2/5000")
    (stage,) = psutil.Process(dvc.pid).children()
    dvc.kill()
    _, alive = psutil.wait_procs([stage], timeout=60)
    assert not alive
    finish(dvc)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_stage_says_one_line(reproduced, tmp_path, number):
    project = reproduced.copy(tmp_path / "project")
    stage = project.start(sys.executable, "-m", "stages.extract")
    read_until(stage, "running efficientnetb0")
    stage.send_signal(number)
    _, errors = finish(stage)
    assert stage.returncode == 130
    assert errors == "thaw: interrupted; `dvc repro` resumes\n"
    assert not list(project.folder.rglob("*unfinished*"))


def test_ctrl_c_while_a_stage_imports_says_one_line(fresh_project):
    """Libraries may turn exceptions into their own while they import."""
    stage = fresh_project.start(sys.executable, "-m", "stages.finetune")
    maps = Path(f"/proc/{stage.pid}/maps")
    wait_until(
        lambda: stage.poll() is not None or "libtensorflow" in maps.read_text()
    )
    stage.send_signal(signal.SIGINT)
    _, errors = finish(stage)
    assert stage.returncode == 130
    assert errors == "thaw: interrupted\n"


def limit_files(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    ("stage", "size"),
    [("prepare", 30_000), ("extract", 30_000), ("finetune", 2_000_000)],
)
def test_a_full_disk_gives_one_line(reproduced, tmp_path, stage, size):
    """A file that may grow no further is as good as a full disk."""
    project = reproduced.copy(tmp_path / "project")
    before = list_files(project)
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        preexec_fn=limit_files(size),
        timeout=project.timeout,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("thaw: ")
    assert "File too large" in line or "the disk may be full" in line
    assert list_files(project) == before


def list_files(project):
    """Files that a user sees, and when each was written."""
    return {
        path: path.stat().st_mtime_ns
        for path in project.folder.rglob("*")
        if path.is_file() and not {".dvc", "__pycache__"} & {*path.parts}
    }


def test_a_folder_that_cannot_be_written_gives_one_line(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    shutil.rmtree(project.folder / "models")
    (project.folder / "models").write_text("in the way")
    done = project.run(sys.executable, "-m", "stages.head")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("thaw: ") and "models" in line


def test_spoilt_data_give_one_line(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    labels = project.folder / "data/prepared/train/labels.npy"
    np.save(labels, np.full(24, 3, np.int32))
    done = project.run(sys.executable, "-m", "stages.extract")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "label 3" in line


def test_a_strange_head_gives_one_line(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    write_lambda(project.folder / "models/head.keras")
    done = project.run(sys.executable, "-m", "stages.finetune")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "can't be loaded" in line
    assert (project.folder / "models/finetuned.keras").exists()
