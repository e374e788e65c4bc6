"""Training on several processes and devices, by real ones on this machine."""

import json
import os
import subprocess
import sys
import time
from shutil import which

import numpy as np
import psutil
import pytest
import yaml
from programs import finish, read_until

from benchmarks.project import ROOT
from thaw.errors import InputError
from thaw.network.backend import keras
from thaw.train.distribution import find_processes

LAUNCHER = f"{sys.executable} -m tests.launch"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Environment of JAX, which compiles once for all tests of this file."""
    return {
        "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def read_scores(project, stage):
    path = project.folder / f"metrics/details/{stage}.json"
    return json.loads(path.read_text())


def read_weights(project, name):
    path = project.folder / "models" / f"{name}.keras"
    return keras.models.load_model(path, compile=False).get_weights()


@pytest.mark.scale
def test_two_processes_train_what_one_does(reproduced, tmp_path, options):
    """Neither do the processes divide a batch, nor batches the images."""
    project = reproduced.copy(tmp_path / "project")
    project.set(
        head__batch_size=5,
        head__class_weight="balanced",
        finetune__batch_size=7,
        finetune__epochs=1,
    )
    repro = ["repro", "--force", "--single-item", "head", "finetune"]
    project.dvc(*repro, **options)
    one = project.copy(tmp_path / "one")
    output = project.dvc(*repro, THAW_LAUNCHER=LAUNCHER, **options)
    assert output.count("epoch  1/1: ") == 2  # a line for each stage

    def read_lock(project):
        lock = yaml.safe_load((project.folder / "dvc.lock").read_text())
        return {
            stage: {key: about.get(key) for key in ("cmd", "params")}
            for stage, about in lock["stages"].items()
        }

    assert read_lock(project) == read_lock(one)
    assert project.dvc("status", "head", "finetune") == one.dvc(
        "status", "head", "finetune"
    )
    images = len(np.load(one.folder / "data/features/labels/validation.npy"))
    for stage, name in (("head", "head"), ("finetune", "finetuned")):
        a, b = read_scores(one, stage), read_scores(project, stage)
        accuracies = [x["validation_accuracy"] for x in (a, b)]
        assert abs(np.subtract(*accuracies)) <= 1.01 / images
        for key in ("validation_loss", "temperature"):
            assert a[key] == pytest.approx(b[key], rel=1e-4)
        for x, y in zip(
            read_weights(one, name), read_weights(project, name), strict=True
        ):
            assert np.linalg.norm(x - y) <= 1e-4 * np.linalg.norm(x) + 1e-9


@pytest.mark.scale
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others(
    reproduced, tmp_path, options, victim
):
    """The next run, of one process, resumes."""
    project = reproduced.copy(tmp_path / "project")
    project.set(head__epochs=3000)
    dvc = [sys.executable, "-m", "dvc", "repro", "--single-item", "head"]
    program = project.start(*dvc, THAW_LAUNCHER=LAUNCHER, **options)
    read_until(program, "epoch  3/3000")
    stages = {
        p.environ()["KERAS_DISTRIBUTION_PROCESS_ID"]: p
        for p in psutil.Process(program.pid).children(recursive=True)
        if "stages.head" in p.cmdline()
        and "tests.launch" not in " ".join(p.cmdline())
    }
    stages.pop(str(victim)).kill()
    _, alive = psutil.wait_procs(stages.values(), timeout=30)
    assert not alive
    _, errors = finish(program)
    assert program.returncode != 0
    lines = [line for line in errors.splitlines() if "DVC" not in line]
    ours = [line for line in lines if line.startswith("thaw: ")]
    assert len(ours) == 1 and "another process" in ours[0]
    assert "Traceback" not in errors and "***" not in errors
    if victim == 1:
        again = project.start(*dvc, **options)
        read_until(again, "resumes a run that was cut off")
        again.terminate()
        finish(again)


def test_several_processes_without_jax_give_one_line(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    done = project.run(*LAUNCHER.split(), sys.executable, "-m", "stages.head")
    assert done.returncode == 1
    assert set(done.stderr.splitlines()) == {
        "thaw: several processes train on JAX alone: set KERAS_BACKEND=jax "
        "(`dvc checkout` brings earlier results back)"
    }
    assert (project.folder / "models/head.keras").exists()


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, (1, 0)),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, (4, 3)),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, (1, 0)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, (1, 0)),  # no srun
        (
            {
                "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
                "JOB_COMPLETION_INDEX": "1",
            },
            (2, 1),
        ),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, (2, 1)),
    ],
)
def test_each_launcher_tells_its_processes(monkeypatch, variables, found):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_processes() == found


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish"])
@pytest.mark.parametrize("stage", ["head", "finetune"])
def test_any_shell_starts_the_launcher(tmp_path, shell, stage):
    """DVC runs $SHELL; zsh splits no variables, nor does sh without IFS."""
    (tmp_path / "python").write_text('#!/bin/sh\necho python "$@"\n')
    (tmp_path / "python").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    command = [shell, "-c", stages[stage]["cmd"]]
    if not which(shell):
        command = ["sh", "-c", f"IFS=; {stages[stage]['cmd']}"]
    expected = f"python -m stages.{stage}\n"
    for launcher in ("", "echo launch "):
        env = {"PATH": path}
        if launcher:
            env["THAW_LAUNCHER"] = launcher
        done = subprocess.run(
            command, env=env, stdout=subprocess.PIPE, text=True, timeout=60
        )
        assert done.stdout == launcher.removeprefix("echo ") + expected


def test_a_rank_out_of_range_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "2")
    with pytest.raises(InputError, match="PROCESS_ID=2"):
        find_processes()


@pytest.mark.slow
def test_the_launcher_ends_as_the_first_failure_does(tmp_path):
    program = (
        "import os, sys, time; "
        "rank = int(os.environ['KERAS_DISTRIBUTION_PROCESS_ID']); "
        "sys.exit(7) if rank else time.sleep(600)"
    )
    began = time.monotonic()
    done = subprocess.run(
        [*LAUNCHER.split(), sys.executable, "-c", program],
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 7 and time.monotonic() - began < 60
