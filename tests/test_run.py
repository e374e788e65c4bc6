"""How a stage runs: checkpoints, progress, locks, environment, Git."""

import json
import os
import shutil
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from conftest import list_checkpoints
from dvc.utils.serialize import dump_yaml
from filelock import FileLock
from programs import run, run_python
from samples import write_photographs

from thaw.errors import InputError
from thaw.network.backend import keras
from thaw.run import process
from thaw.run.checkpoints import identify, make_key, open_checkpoint
from thaw.run.console import progress
from thaw.run.environment import describe_environment, find_backend
from thaw.run.tracking import check_untracked


def test_programs_between_dvc_and_a_stage_are_watched(monkeypatch):
    """A launcher inherits DVC_STAGE; what started DVC is not watched."""

    class Parent:
        def __init__(self, name, *inherits):
            self.name = lambda: name
            self.environ = lambda: dict.fromkeys(inherits, "head")

    def denied():
        raise psutil.AccessDenied

    shell, dvc = Parent("sh", "DVC_STAGE"), Parent("dvc")
    launcher, remote = Parent("mpirun", "DVC_STAGE"), Parent("slurmstepd")
    remote.environ = denied
    for parents, watched in (
        ([shell, dvc, Parent("make")], [dvc]),
        ([launcher, shell, dvc, Parent("make")], [launcher, dvc]),
        ([remote, Parent("systemd")], [remote]),
        ([], []),
    ):
        this = SimpleNamespace(parents=lambda parents=parents: parents)
        monkeypatch.setattr(process.psutil, "Process", lambda this=this: this)
        monkeypatch.delenv("DVC_STAGE", raising=False)
        assert process.find_starters() == []
        monkeypatch.setenv("DVC_STAGE", "head")
        assert process.find_starters() == watched


@pytest.mark.scale
def test_the_environment_names_jax_only_where_it_is_used(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert "jax" not in describe_environment()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert "jax 0" in describe_environment()
    assert "tensorflow " in describe_environment()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    write_photographs(tmp_path / "raw", each=5)
    monkeypatch.chdir(tmp_path)
    run("git", "init", "--quiet", cwd=tmp_path)
    return tmp_path


def test_photographs_that_git_would_take_are_refused(repository):
    for path in ("raw", repository / "raw", "."):
        with pytest.raises(InputError, match=r"dvc add .* or name it") as told:
            check_untracked(path)
        assert "\n" not in str(told.value)
    (repository / "link").symlink_to("raw")
    with pytest.raises(InputError):
        check_untracked("link")


def test_photographs_that_git_ignores_or_has_are_accepted(repository):
    (repository / ".gitignore").write_text("/raw\n")
    check_untracked("raw")
    (repository / ".gitignore").write_text("")
    run("git", "add", "raw", cwd=repository)
    check_untracked("raw")
    shutil.copy("raw/both/00.jpg", "raw/both/new.jpg")
    with pytest.raises(InputError):
        check_untracked("raw")


def test_photographs_outside_the_repository_are_accepted(
    repository, tmp_path_factory
):
    outside = tmp_path_factory.mktemp("outside")
    write_photographs(outside / "raw", each=1)
    check_untracked(outside / "raw")
    (repository / "link").symlink_to(outside / "raw")
    check_untracked("link")


def test_an_experiment_commits_no_photograph(fresh_project, tmp_path):
    project = fresh_project.copy(tmp_path / "project")
    project.run("git", "rm", "-rq", "--cached", "data/raw")
    project.run("git", "commit", "-qm", "photographs out")
    assert not project.run("git", "status", "--porcelain").stdout
    project.dvc("exp", "run", "check")
    refs = project.run("git", "for-each-ref", "--format=%(refname)").stdout
    experiments = [ref for ref in refs.split() if "refs/exps" in ref]
    for ref in experiments:
        tree = project.run("git", "ls-tree", "-r", ref).stdout
        assert "params.yaml" in tree and ".jpg" not in tree
    assert experiments
    shutil.copytree(project.folder / "data/raw", project.folder / "mine")
    for source in ("folder", "table"):
        change = ["-S", "prepare.path=mine", "-S", f"prepare.source={source}"]
        command = ["dvc", "exp", "run", *change, "check"]
        done = project.run(sys.executable, "-m", *command)
        assert done.returncode != 0
        (line,) = [x for x in done.stderr.splitlines() if "thaw:" in x]
        assert "`dvc add mine` and commit mine.dvc" in line
    added = project.dvc("add", "data/raw")
    assert "data/raw.dvc" in added


def test_a_folder_under_dvc_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("yes", "010", "1e5"):
        (tmp_path / name).mkdir()
        dump_yaml(f"{name}.dvc", {"outs": [{"md5": "a.dir", "path": name}]})
        assert identify(Path(name), {}) == "a.dir"


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test says so."""
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr("thaw.run.console.time", clock)
    return clock


def test_a_log_gets_progress_lines_at_intervals(clock, capsys):
    with progress(1000, "extracting", "images", done=200) as bar:
        for _ in range(50):
            clock.now += 1
            bar.update(10)
    assert capsys.readouterr().err.splitlines() == [
        "extracting: 400 of 1000 images, 10 a second, about 60.0 s left",
        "extracting: 600 of 1000 images, 10 a second, about 40.0 s left",
    ]
    with progress(None, "decoding", "images") as bar:
        clock.now += 50
        bar.update(10)
    assert capsys.readouterr().err == "decoding: 10 images, 0.2 a second\n"


@pytest.mark.parametrize(("columns", "found"), [(0, b"10 of 99"), (80, b"%|")])
def test_a_bar_needs_a_terminal_with_a_width(
    clock, monkeypatch, columns, found
):
    """A terminal of a background job may have a width of 0."""
    main, side = os.openpty()
    termios.tcsetwinsize(side, (24, columns))
    with os.fdopen(side, "w") as stderr, os.fdopen(main, "rb", 0) as shown:
        monkeypatch.setattr(sys, "stderr", stderr)
        with progress(99, "extracting", "images") as bar:
            clock.now += 50
            bar.update(10)
        assert found in shown.read(1000)


def test_only_the_first_process_reports_progress(clock, monkeypatch, capsys):
    monkeypatch.setattr(process, "_rank", 1)
    with progress(1000, "training", "batches") as bar:
        clock.now += 50
        bar.update(10)
    assert not capsys.readouterr().err


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


def test_a_checkpoint_stays_until_the_next_stage(as_stage):
    project = as_stage("head")
    with pytest.raises(KeyboardInterrupt), open_checkpoint() as checkpoint:
        checkpoint.write(epochs=3)
        raise KeyboardInterrupt
    with open_checkpoint() as checkpoint:
        assert checkpoint.note == {"epochs": 3}
    assert len(list_checkpoints(project)) == 1
    as_stage("evaluate")
    with open_checkpoint(last=True) as checkpoint:
        assert checkpoint.note == {}
        assert list_checkpoints(project) == [checkpoint.folder]
    assert list_checkpoints(project) == []


def test_an_input_error_leaves_no_checkpoint(as_stage):
    project = as_stage("head")
    with pytest.raises(InputError), open_checkpoint():
        raise InputError("no")
    assert list_checkpoints(project) == []


def test_a_second_process_gets_its_own_checkpoint(as_stage):
    as_stage("head")
    with open_checkpoint() as first, open_checkpoint() as second:
        first.write(epochs=1)
        assert second.folder != first.folder and second.note == {}
        second.write(epochs=2)
    assert not second.folder.exists()
    assert first.folder.exists()


def test_an_old_checkpoint_is_removed(as_stage):
    project = as_stage("head")
    with pytest.raises(KeyboardInterrupt), open_checkpoint() as old:
        raise KeyboardInterrupt
    as_stage("finetune")
    with open_checkpoint():
        assert old.folder.exists()
    os.utime(old.folder, (0, 0))
    with open_checkpoint() as checkpoint:
        assert list_checkpoints(project) == [checkpoint.folder]


def test_the_key_is_that_of_what_the_stage_reads(as_stage, tmp_path):
    project = as_stage("head")
    key = make_key("head")
    project.set(finetune__epochs=9)
    assert make_key("head") == key != make_key("finetune")
    copy = project.copy(tmp_path / "queued")
    as_stage("head", copy.folder)
    assert make_key("head") == key
    copy.set(head__dropout=0.3)
    assert make_key("head") != key


def test_the_key_follows_the_backend_of_keras(as_stage, tmp_path, monkeypatch):
    as_stage("head")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    key = make_key("head")
    (tmp_path / "keras.json").write_text('{"backend": "openvino"}')
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert make_key("head") != key
    assert "Keras on openvino" in describe_environment()
    for chosen in ("tensorflow", ""):
        monkeypatch.setenv("KERAS_BACKEND", chosen)
        program = "import keras; print(keras.backend.backend())"
        assert find_backend() == run_python(program).split()[-1]
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert make_key("head") == key


def test_the_key_follows_data_and_code(reproduced, tmp_path, as_stage):
    project = reproduced.copy(tmp_path / "run")
    as_stage("extract", project.folder)
    key = make_key("extract")
    lock = project.folder / "dvc.lock"
    written = yaml.safe_load(lock.read_text())
    (out,) = [
        x
        for x in written["stages"]["prepare"]["outs"]
        if x["path"] == "data/prepared"
    ]
    out["md5"] = "0" * 32 + ".dir"
    lock.write_text(yaml.safe_dump(written))
    assert make_key("extract") != key
    other = make_key("prepare")
    photograph = next((project.folder / "data/raw/both").iterdir())
    photograph.write_bytes(photograph.read_bytes() + b" ")
    assert make_key("prepare") != other
    code = project.folder / "thaw/frozen/network.py"
    before = make_key("extract")
    code.write_text(code.read_text() + "# changed\n")
    assert make_key("extract") != before


def test_one_stage_at_a_time_has_the_workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "POLL_SECONDS", 0.01)
    with process.lock_workspace():
        pass
    other = FileLock(process.LOCK, thread_local=False)
    with (
        other,
        pytest.raises(InputError, match="another stage is running"),
        process.lock_workspace(),
    ):
        raise AssertionError
    with process.lock_workspace():
        pass


def test_the_environment_is_stamped_beside_the_scores(reproduced):
    for name in ("prepare", "head", "finetune", "evaluate"):
        path = reproduced.folder / f"metrics/details/{name}.json"
        metrics = json.loads(path.read_text())
        assert metrics["environment"] == describe_environment()
    assert f"keras {keras.__version__}" in metrics["environment"]
    assert "threads" in metrics["environment"]
