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
from dvc.utils.serialize import dump_yaml
from filelock import FileLock
from programs import run, run_python
from samples import write_photographs

from thaw.data.efficientnet import VARIANTS, get_weights_url
from thaw.errors import InputError
from thaw.files import rank
from thaw.network.backend import keras
from thaw.run import process
from thaw.run.console import fail, progress
from thaw.run.tracking import check_readable, check_untracked
from thaw.run.weights import check_weights
from thaw.stage.environment import describe_environment
from thaw.stage.inputs import make_key


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
    monkeypatch.setattr(rank, "_rank", 1)
    with progress(1000, "training", "batches") as bar:
        clock.now += 50
        bar.update(10)
    assert not capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda raw: os.mkfifo(raw / "pipe.jpg"), "pipes.*pipe.jpg"),
        (
            lambda raw: (raw / "zero.jpg").symlink_to("/dev/zero"),
            r"devices: .*zero.jpg \(remove them\)",
        ),
        (
            lambda raw: (raw / "gone.jpg").symlink_to("nowhere"),
            "point nowhere: .*gone.jpg .*dvc checkout",
        ),
        (
            lambda raw: Path(os.fsdecode(bytes(raw) + b"/\xff.jpg")).touch(),
            r"not UTF-8: .*/\\xff.jpg",
        ),
    ],
    ids=["pipe", "device", "link", "name"],
)
def test_files_that_dvc_can_not_read_are_named(tmp_path, spoil, words):
    write_photographs(tmp_path, each=1)
    check_readable(tmp_path)
    spoil(tmp_path / "both")
    with pytest.raises(InputError, match=words):
        check_readable(tmp_path)


def test_check_comes_before_dvc_reads_a_pipe(fresh_project, tmp_path):
    project = fresh_project.copy(tmp_path / "project")
    os.mkfifo(project.folder / "data/raw/both/pipe")
    done = project.run(sys.executable, "-m", "dvc", "repro")
    assert "thaw: prepare.path is data/raw: pipes" in done.stderr


def test_imagenet_weights_that_can_not_be_had_are_named_early(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr("thaw.run.weights.is_online", lambda: False)
    backbone = {"name": "EfficientNetB4", "weights": "imagenet", "file": "x"}
    with pytest.raises(InputError, match=r"b4_notop\.h5.*backbone\.file"):
        check_weights("EfficientNetB4", backbone)
    lock = {"extract": {"params": {"params.yaml": {"backbone": backbone}}}}
    dump_yaml("dvc.lock", {"stages": lock})
    check_weights("EfficientNetB4", backbone)  # what follows may need none
    assert "warning" in capsys.readouterr().out
    Path("dvc.lock").unlink()
    file = tmp_path / "keras/models/efficientnetv2-s_notop.h5"
    file.parent.mkdir(parents=True)
    file.touch()
    check_weights("EfficientNetV2S", backbone)


@pytest.mark.parametrize("name", VARIANTS)
def test_keras_downloads_weights_from_where_we_say(name, monkeypatch):
    asked = []

    def refuse(file, origin, **options):
        asked.append((file, origin))
        raise OSError

    for module in ("efficientnet", "efficientnet_v2"):
        path = f"keras.src.applications.{module}.file_utils.get_file"
        monkeypatch.setattr(path, refuse)
    with pytest.raises(OSError):
        getattr(keras.applications, name)(include_top=False)
    ((file, origin),) = asked
    assert origin == get_weights_url(name) and origin.endswith(f"/{file}")


def test_settings_of_keras_change_no_network(tmp_path):
    """channels_first, float16, and variables that cut trainings short."""
    program = (
        "from thaw.network.backend import keras\n"
        "from thaw.network.backbone import build_backbone\n"
        "b = build_backbone('EfficientNetB0', None, '', 32)\n"
        "m = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])\n"
        "m.compile('sgd', 'mse')\n"
        "import numpy as np\n"
        "x = np.ones((8, 1))\n"
        "h = m.fit(x, x, epochs=3, batch_size=2, verbose=0)\n"
        "print(b.output.shape, b.output.dtype, len(h.epoch),\n"
        "      m.optimizer.iterations.numpy(), keras.config.epsilon())\n"
    )
    settings = {
        "floatx": "float16",
        "epsilon": 0.1,
        "backend": "tensorflow",
        "image_data_format": "channels_first",
    }
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    said = run_python(
        program,
        KERAS_HOME=str(tmp_path),
        KERAS_MAX_EPOCHS="1",
        KERAS_MAX_STEPS_PER_EPOCH="1",
    )
    assert said.split("\n")[-2] == "(None, 1280) float32 3 12 1e-07"


def test_text_of_others_steers_no_terminal(capsys):
    with pytest.raises(SystemExit):
        fail("a class called \x1b[31mred\x07\u202e\udcff and Größe")
    said = capsys.readouterr().err
    assert said.endswith(r"\x1b[31mred\x07\u202e\udcff and Größe" + "\n")
