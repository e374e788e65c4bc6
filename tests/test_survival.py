"""Runs that are cut off, crowded out or led astray, and what is left."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import termios
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import yaml
from conftest import OPTIONAL
from filelock import FileLock

from thaw.commands.predict import Classifier
from thaw.errors import InputError
from thaw.files.arrays import create_array
from thaw.frozen.network import freeze_model
from thaw.frozen.passes import FrozenPass
from thaw.network import backend
from thaw.network.backend import keras, make_deterministic
from thaw.network.head import build_head, join_head
from thaw.network.model_file import load_model, save_model
from thaw.network.parts import get_part
from thaw.run import process
from thaw.run.checkpoints import Checkpoint, make_key, open_checkpoint
from thaw.run.console import progress
from thaw.run.efficientnet import LOGITS, POOLED
from thaw.run.environment import describe_environment, find_backend
from thaw.train.batches import Batches
from thaw.train.callbacks import Narrator
from thaw.train.loop import train_model
from thaw.train.recipe import Recipe, weigh_classes

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(40, 8)).astype(np.float32)
LABELS = np.arange(40) % 3


def train(folder, learning_rate=0.05, **options):
    """A head with dropout, from its seed; its weights and its curves.

    Where it is scored before, it guesses.
    """
    make_deterministic(5)
    model = get_part(build_head(8, 3, dropout=0.5), POOLED, LOGITS)
    if "from_trained" in options:
        model.get_layer(LOGITS).kernel.assign(np.zeros((8, 3)))
    batches = {
        seed: Batches(lambda rows, views: FEATURES[rows], LABELS, 1, 8, seed)
        for seed in (3, None)
    }
    folder.mkdir(exist_ok=True)
    training = train_model(
        model,
        batches[3],
        batches[None],
        Recipe("head", epochs=6, learning_rate=learning_rate, **options),
        Checkpoint(folder),
    )
    return model.get_weights(), training.curves


@pytest.mark.parametrize("from_trained", [False, True])
def test_training_goes_on_as_if_nothing_had_happened(
    tmp_path, monkeypatch, capsys, from_trained
):
    whole, curves = train(tmp_path / "whole", from_trained=from_trained)
    said = Narrator.on_epoch_end

    def cut_off(self, epoch, logs=None):
        said(self, epoch, logs)
        if epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Narrator, "on_epoch_end", cut_off)
        train(tmp_path / "cut", from_trained=from_trained)
    capsys.readouterr()
    resumed, curves_of_both = train(tmp_path / "cut", from_trained=from_trained)
    said = capsys.readouterr().out
    assert "of 6 epochs 3 are done" in said and said.count("epoch  ") == 3
    assert curves_of_both == curves
    for a, b in zip(whole, resumed, strict=True):
        assert np.array_equal(a, b)


def test_a_finished_training_is_not_done_again(tmp_path, capsys):
    whole, curves = train(tmp_path / "a")
    capsys.readouterr()
    again, curves_again = train(tmp_path / "a")
    assert "epoch  " not in capsys.readouterr().out
    assert curves_again == curves
    assert all(map(np.array_equal, whole, again))


def test_a_lost_training_stays_lost(tmp_path, capsys):
    """Cut off behind its last epoch, it must not train on."""
    options = {"from_trained": True, "learning_rate": 1e4}
    whole, curves = train(tmp_path / "a", **options)
    assert len(curves) == 1
    again, curves_again = train(tmp_path / "a", **options)
    assert curves_again == curves
    assert all(map(np.array_equal, whole, again))


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test says so."""
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr("thaw.run.console.time", clock)
    return clock


def test_a_log_has_a_line_now_and_then(clock, capsys):
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
def test_a_bar_is_drawn_where_it_fits(clock, monkeypatch, columns, found):
    """A terminal that nobody looks at may have no width."""
    main, side = os.openpty()
    termios.tcsetwinsize(side, (24, columns))
    with os.fdopen(side, "w") as stderr, os.fdopen(main, "rb", 0) as shown:
        monkeypatch.setattr(sys, "stderr", stderr)
        with progress(99, "extracting", "images") as bar:
            clock.now += 50
            bar.update(10)
        assert found in shown.read(1000)


def test_only_the_first_process_says_how_far_it_is(clock, monkeypatch, capsys):
    monkeypatch.setattr(process, "_rank", 1)
    with progress(1000, "training", "batches") as bar:
        clock.now += 50
        bar.update(10)
    assert not capsys.readouterr().err


def test_training_says_how_far_it_is_within_an_epoch(
    tmp_path, monkeypatch, capsys
):
    train(tmp_path / "quick")
    assert not capsys.readouterr().err
    monkeypatch.setattr("thaw.run.console.SECONDS_BETWEEN_LINES", 0)
    train(tmp_path / "slow")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 30 and lines[2].startswith("training: 3 of 30 batches")


def test_float32_on_a_gpu_is_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backend, "sees_gpu", lambda: True)
    backend.warn_of_float32.cache_clear()
    for folder in ("a", "b"):
        train(tmp_path / folder)
    backend.warn_of_float32.cache_clear()
    assert capsys.readouterr().out.count("computes there in float32") == 1


@pytest.fixture
def run_network(tmp_path):
    """Runs 50 images in 2 views, and 20 more, through a small network."""
    images = RNG.integers(0, 256, (50, 6, 6, 3), np.uint8)
    image = keras.Input((6, 6, 3), name="image")
    keras.utils.set_random_seed(0)
    kept = keras.layers.Conv2D(4, 3, name="kept")(image)
    network = freeze_model(keras.Model(image, kept), "float32", "uint8")

    def run(folder, fails_at=None):
        asked = []

        def gather(rows, views):
            asked.extend(zip(views.tolist(), rows.tolist(), strict=True))
            if fails_at in asked:
                raise KeyboardInterrupt
            return images[rows] // (1 + views[:, None, None, None])

        (tmp_path / folder).mkdir(exist_ok=True)
        FrozenPass(
            network,
            {"kept": "float16"},
            views=2,
            rows={"train": 50, "test": 20},
            gather=dict.fromkeys(("train", "test"), gather),
            label="running",
        ).write(Checkpoint(tmp_path / folder))
        files = sorted((tmp_path / folder / "kept").iterdir())
        return {path.name: np.load(path) for path in files}, len(asked)

    return run


def test_a_frozen_pass_goes_on_where_it_was(run_network, monkeypatch, capsys):
    monkeypatch.setattr("thaw.frozen.passes.SECONDS_BETWEEN_NOTES", 1e-9)
    whole, images = run_network("whole")
    with pytest.raises(KeyboardInterrupt):
        run_network("cut", fails_at=(1, 30))
    capsys.readouterr()
    resumed, images_again = run_network("cut")
    assert "goes on from a run that was cut off" in capsys.readouterr().out
    # Of 120 images 70 or so were done; some more for the preview.
    assert images_again < images - 60
    assert list(whole) == ["test-0.npy", "train-0.npy", "train-1.npy"]
    for name in whole:
        assert np.array_equal(whole[name], resumed[name]), name
    again, images_again = run_network("cut")
    assert images_again == 0
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


@pytest.fixture
def as_stage(fresh_project, tmp_path, monkeypatch):
    """As if DVC had started a stage in a copy of the project."""
    project = fresh_project.copy(tmp_path / "project")

    def enter(stage, folder=project.folder):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("DVC_STAGE", stage)
        monkeypatch.setenv("DVC_ROOT", str(project.folder))
        return project

    return enter


def list_checkpoints(project):
    return sorted((project.folder / ".dvc/tmp/thaw").glob("*-*"))


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


def test_what_a_user_must_put_right_leaves_no_checkpoint(as_stage):
    project = as_stage("head")
    with pytest.raises(InputError), open_checkpoint():
        raise InputError("no")
    assert list_checkpoints(project) == []


def test_a_checkpoint_is_one_processes_at_a_time(as_stage):
    as_stage("head")
    with open_checkpoint() as first, open_checkpoint() as second:
        first.write(epochs=1)
        assert second.folder != first.folder and second.note == {}
        second.write(epochs=2)
    assert not second.folder.exists()
    assert first.folder.exists()


def test_work_that_was_left_long_ago_is_dropped(as_stage):
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
        kerass = subprocess.check_output([sys.executable, "-c", program])
        assert find_backend() == kerass.decode().split()[-1]
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


def test_a_workspace_is_one_stages_at_a_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "POLL_SECONDS", 0.01)
    with process.lock_workspace():
        pass
    other = FileLock(process.LOCK, thread_local=False)
    with (
        other,
        pytest.raises(InputError, match="another stage is at work"),
        process.lock_workspace(),
    ):
        raise AssertionError
    with process.lock_workspace():
        pass


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


def list_hashes(project):
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())
    return {
        out["path"]: out["md5"]
        for stage in lock["stages"].values()
        for out in stage["outs"]
    }


def start_over(reproduced, folder):
    """A copy in which no stage ever ran."""
    project = reproduced.copy(folder)
    (project.folder / "dvc.lock").unlink()
    shutil.rmtree(project.folder / ".dvc/cache")
    return project


def kill(dvc, *also):
    """`kill -9` of DVC and of some of what it runs; the rest ends by itself."""
    stages = psutil.Process(dvc.pid).children(recursive=True)
    for program in (dvc, *(stages[i] for i in also)):
        program.kill()
    _, alive = psutil.wait_procs(stages, timeout=60)
    dvc.communicate()
    assert not alive


def check_same(project, reproduced, target):
    hashes = list_hashes(project)
    assert target in hashes
    assert hashes.items() <= list_hashes(reproduced).items()
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


def test_a_killed_run_goes_on_without_any_optional_package(
    reproduced, tmp_path
):
    """Behind the epoch that `head` and `finetune` were killed after."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    env = {"PYTHONPATH": str(tmp_path)}
    project = start_over(reproduced, tmp_path / "project")
    imported = project.run(sys.executable, "-c", "import ray", **env)
    assert "No module named 'ray'; blocked" in imported.stderr
    for stage in ("head", "finetune"):
        dvc = start(project, sys.executable, "-m", "dvc", "repro", **env)
        kept = project.folder / ".dvc/tmp/thaw"
        while not list(kept.glob(f"{stage}-*/training.npz")):
            assert dvc.poll() is None, dvc.communicate()
            time.sleep(0.01)
        kill(dvc, -1)
    output = project.dvc("repro", "report", **env)
    assert "of 2 epochs" in output and "stages.head" not in output
    check_same(project, reproduced, "report.html")


def test_a_killed_stage_goes_on_to_the_same_hashes(reproduced, tmp_path):
    """DVC stays, and fails."""
    project = start_over(reproduced, tmp_path / "project")
    dvc = start(project, sys.executable, "-m", "dvc", "repro", "extract")
    read_until(dvc, "running efficientnetb0")
    stages = psutil.Process(dvc.pid).children(recursive=True)
    stages[0].kill()
    _, errors = dvc.communicate()
    assert dvc.returncode and "extract" in errors
    _, alive = psutil.wait_procs(stages, timeout=60)
    assert not alive
    project.dvc("repro", "extract")
    hashes = list_hashes(project)
    assert "data/features" in hashes
    assert hashes.items() <= list_hashes(reproduced).items()
    assert not list(project.folder.rglob("*unfinished*"))


def test_a_stage_ends_with_the_dvc_that_started_it(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    project.set(finetune__epochs=5000)
    stage = ["-m", "stages.finetune"]
    program = (
        "import subprocess, sys; "
        f"subprocess.run([sys.executable, *{stage}], check=False)"
    )
    dvc = start(project, sys.executable, "-c", program, DVC_STAGE="finetune")
    read_until(dvc, "epoch  2/5000")
    (stage,) = psutil.Process(dvc.pid).children()
    dvc.kill()
    _, alive = psutil.wait_procs([stage], timeout=60)
    assert not alive
    dvc.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_stage_says_one_line(reproduced, tmp_path, number):
    project = reproduced.copy(tmp_path / "project")
    stage = start(project, sys.executable, "-m", "stages.extract")
    read_until(stage, "running efficientnetb0")
    stage.send_signal(number)
    _, errors = stage.communicate()
    assert stage.returncode == 130
    assert errors == "thaw: interrupted; `dvc repro` goes on\n"
    assert not list(project.folder.rglob("*unfinished*"))


def test_ctrl_c_while_a_stage_imports_says_one_line(fresh_project):
    """Whatever the libraries do with exceptions of their own."""
    stage = start(fresh_project, sys.executable, "-m", "stages.finetune")
    while "libtensorflow" not in Path(f"/proc/{stage.pid}/maps").read_text():
        assert stage.poll() is None
    stage.send_signal(signal.SIGINT)
    _, errors = stage.communicate()
    assert stage.returncode == 130
    assert errors == "thaw: interrupted\n"


def limit_files(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    ("stage", "size"),
    [("prepare", 30_000), ("extract", 30_000), ("finetune", 2_000_000)],
)
def test_a_disk_without_room_gives_one_line(reproduced, tmp_path, stage, size):
    """A file that may grow no further is as good as a full disk."""
    project = reproduced.copy(tmp_path / "project")
    before = list_files(project)
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        preexec_fn=limit_files(size),
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("thaw: ") and "File too large" in line
    assert list_files(project) == before


def list_files(project):
    """What a user sees, and when it was written."""
    return {
        path: path.stat().st_mtime_ns
        for path in project.folder.rglob("*")
        if path.is_file() and not {".dvc", "__pycache__"} & {*path.parts}
    }


def test_a_place_that_cannot_be_written_gives_one_line(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    shutil.rmtree(project.folder / "models")
    (project.folder / "models").write_text("in the way")
    done = project.run(sys.executable, "-m", "stages.head")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("thaw: ") and "models" in line


def test_an_array_takes_its_room_at_once(tmp_path):
    path = tmp_path / "a.npy"
    array = create_array(path, (1000, 1000), "float32")
    assert path.stat().st_blocks * 512 >= array.nbytes


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
        (
            lambda a: np.save(a / "labels.npy", np.full(24, 3, np.int32)),
            "label 3",
        ),
        (
            lambda a: np.save(
                a / "images.npy", np.zeros((24, 32, 32, 3), np.float32)
            ),
            "of uint8 in [0, 255]",
        ),
        (lambda a: (a / "images.npy").write_bytes(b"\x93NUMPY"), "whole array"),
        (lambda a: (a / "images.npy").write_bytes(b"no"), "whole array"),
    ],
    ids=["labels", "scaled", "cut", "other"],
)
def test_data_that_someone_spoilt_give_one_line(
    reproduced, tmp_path, spoil, words
):
    project = reproduced.copy(tmp_path / "project")
    spoil(project.folder / "data/prepared/train")
    done = project.run(sys.executable, "-m", "stages.extract")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert words in line


def write_climbing(path):
    """Its assets would land outside of their folder."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/../../../../climbed.txt", "here")


def write_absolute(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("/tmp/climbed.txt", "here")


def write_lambda(path):
    inputs = keras.Input((1280,))
    outputs = keras.layers.Lambda(lambda x: x[:, :3])(inputs)
    keras.Model(inputs, outputs).save(path)


def write_other(path):
    save_model(build_head(1280, 7, 0.2), path)


def write_without_our_layers(path):
    inputs = keras.Input((1280,))
    save_model(keras.Model(inputs, keras.layers.Dense(3)(inputs)), path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_climbing, "a path out of the archive"),
        (write_absolute, "a path out of the archive"),
        (write_lambda, "can't be loaded"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "can't be"),
        (lambda path: path.write_text("{}"), "can't be loaded"),
        (write_other, "to (None, 3) is needed"),
        (write_without_our_layers, "other layers"),
    ],
    ids=["climbing", "absolute", "lambda", "cut", "text", "classes", "layers"],
)
def test_a_strange_head_is_refused(tmp_path, write, words):
    path = tmp_path / "head.keras"
    save_model(build_head(1280, 3, 0.2), path)
    write(path)
    with pytest.raises(InputError) as refusal:
        backbone = keras.Model(image := keras.Input((1280,)), image)
        join_head(backbone, load_model(path, (1280,), 3))
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_strange_head_gives_one_line(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    write_lambda(project.folder / "models/head.keras")
    done = project.run(sys.executable, "-m", "stages.finetune")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "can't be loaded" in line
    assert (project.folder / "models/finetuned.keras").exists()


def test_a_precision_is_refused_by_the_name_it_was_asked_by(reproduced):
    model = reproduced.folder / "models/finetuned.keras"
    with pytest.raises(InputError, match="--precision is bfloat8"):
        Classifier(model, "bfloat8")


def test_balanced_classes_weigh_the_same():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = weigh_classes(labels, "balanced")
    total = [weights[label] * (labels == label).sum() for label in range(3)]
    assert total == pytest.approx([10 / 3] * 3)
    assert weigh_classes(labels, "none") is None


def test_class_weights_change_training_and_leave_validation(tmp_path):
    """With equal weights for equal classes nothing changes, else it does."""
    plain, _ = train(tmp_path / "a")
    same, _ = train(tmp_path / "b", class_weight="none")
    assert all(map(np.array_equal, plain, same))
    other, _ = train(tmp_path / "c", class_weight="balanced")
    assert not all(map(np.array_equal, plain, other))
