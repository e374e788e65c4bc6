"""A stage: what it reads, the work of one that was cut off, its environment."""

import ast
import os
import sys
import tempfile
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import list_checkpoints
from dvc.utils.serialize import dump_yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import run_python

from benchmarks.project import ROOT
from thaw.errors import InputError
from thaw.files.arrays import ArrayWriter
from thaw.stage.checkpoints import Checkpoint, open_checkpoint
from thaw.stage.environment import (
    PACKAGES,
    describe_environment,
    find_backend,
)
from thaw.stage.inputs import identify, make_key, watch_inputs


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


def test_a_folder_under_dvc_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("yes", "010", "1e5"):
        (tmp_path / name).mkdir()
        dump_yaml(f"{name}.dvc", {"outs": [{"md5": "a.dir", "path": name}]})
        assert identify(Path(name), {}) == "a.dir"


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


def fill(folder):
    """Work of a stage that was cut off, with a part of its own."""
    checkpoint = Checkpoint(folder)
    with ArrayWriter(folder / "rows.npy", (4,), np.float32) as rows:
        rows.append(np.ones((6, 4)))
    (folder / "inner").mkdir()
    (folder / "inner/table.csv").write_text("a,b\n1,2\n")
    checkpoint.write(rows=6)
    part = Checkpoint(folder).enter("part")
    (part.folder / "more.npy").write_bytes(b"12345678")
    part.write(done=1)


WORK = ["rows.npy", "inner/table.csv", "note.json", "part/more.npy"]


@given(st.sampled_from(WORK), st.floats(0, 0.999))
@settings(max_examples=40, deadline=None)
def test_work_that_is_cut_at_any_length_is_not_gone_on_from(name, share):
    """As after a power cut, which may leave any file shorter."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        fill(folder)
        os.truncate(folder / name, int(share * (folder / name).stat().st_size))
        checkpoint = Checkpoint(folder)
        inner = checkpoint.enter("part")
        if name.startswith("part/"):
            assert checkpoint.note == {"rows": 6} and inner.note == {}
            assert not (inner.folder / "more.npy").exists()
        elif name == "note.json" and checkpoint.note:
            assert checkpoint.note == {"rows": 6}  # but for the last line end
        else:
            assert checkpoint.note == {} == inner.note
            assert not (folder / "rows.npy").exists()


def test_work_is_on_the_disk_before_its_note(tmp_path, monkeypatch):
    synced = []

    def sync(number):
        inode = os.fstat(number).st_ino
        (name,) = (
            x.name for x in tmp_path.iterdir() if x.stat().st_ino == inode
        )
        synced.append((name, (tmp_path / "note.json").exists()))

    monkeypatch.setattr("os.fsync", sync)
    (tmp_path / "rows.npy").write_bytes(b"1")
    Checkpoint(tmp_path).write(done=1)
    names = [("rows.npy", False), (".unfinished.note.json", False)]
    assert synced == names


def test_work_that_is_whole_or_has_grown_is_gone_on_from(tmp_path, capsys):
    fill(tmp_path)
    with (tmp_path / "rows.npy").open("ab") as file:
        file.write(bytes(7))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.note == {"rows": 6}
    assert checkpoint.enter("part").note == {"done": 1}
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "note", ["", "[]", "{}", '{"format": 99, "note": {}, "sizes": {}}']
)
def test_a_note_of_another_version_is_not_gone_on_from(tmp_path, note, capsys):
    fill(tmp_path)
    (tmp_path / "note.json").write_text(note)
    assert Checkpoint(tmp_path).note == {}
    assert "it starts again" in capsys.readouterr().out


def test_an_array_is_never_extended_with_zeros(tmp_path):
    with ArrayWriter(tmp_path / "a.npy", (4,), np.float32) as rows:
        rows.append(np.ones((6, 4)))
    with pytest.raises(InputError, match="less than 7 rows"):
        ArrayWriter(tmp_path / "a.npy", (4,), np.float32, 7)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: Path("params.yaml").write_text(edited()), "prepare"),
        (lambda: Path("data/raw/both/01.jpg").write_bytes(b"new"), "data/raw"),
        (lambda: Path("data/raw/both/new.jpg").write_bytes(b""), "data/raw"),
        (lambda: Path("corrections.csv").write_text("x"), "corrections.csv"),
        (lambda: Path("thaw/data/views.py").write_text("x"), "thaw/data"),
    ],
    ids=["parameter", "photograph", "new", "correction", "code"],
)
def test_what_changes_while_a_stage_reads_it_is_refused(
    as_stage, change, named
):
    """DVC would take the state after the stage for what it read."""
    as_stage("prepare")
    # Under DVC, whose hash of it does not follow before `dvc add`.
    dump_yaml("data/raw.dvc", {"outs": [{"md5": "a.dir", "path": "raw"}]})
    with watch_inputs():
        Path("README.md").write_text("of no concern")
    words = f"{named} changed while prepare ran"
    with pytest.raises(InputError, match=words), watch_inputs():
        change()


def edited():
    return Path("params.yaml").read_text().replace("test: 0.2", "test: 0.3")


def test_a_photograph_replaced_while_prepare_runs_is_not_up_to_date(
    fresh_project, tmp_path
):
    project = fresh_project.copy(tmp_path / "project")
    photograph = project.folder / "data/raw/both/01.jpg"
    other = (project.folder / "data/raw/down/01.jpg").read_bytes()
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, atexit\n"
        "def replace():\n"
        f"    open({str(photograph)!r}, 'wb').write({other!r})\n"
        "def watch(event, args):\n"
        "    if event == 'open' and 'fingerprints.npy' in str(args[0]):\n"
        "        replace()\n"
        "if 'stages.prepare' in sys.orig_argv:\n"
        "    sys.addaudithook(watch)\n"
    )
    done = project.run(
        sys.executable, "-m", "dvc", "repro", "prepare",
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode != 0
    assert "data/raw changed while prepare ran" in done.stderr
    said = project.dvc("repro", "prepare")
    assert "Running stage 'prepare'" in said


# Third-party modules of the rooms whose version changes no digit of a result.
INDIFFERENT = {
    "dvc", "filelock", "hydra", "jinja2", "matplotlib", "psutil", "pydantic",
    "ruamel", "tqdm", "ray", "h5py",
}  # fmt: skip
# What an export is made by; `export` keeps none of its rows.
EXPORTING = {"ai_edge_litert", "onnx", "onnxruntime", "tf2onnx"}


def test_the_environment_names_all_that_computes():
    """A library that an earlier row was made by is never left out."""
    files = (ROOT / "thaw").rglob("*.py")
    nodes = [node for x in files for node in ast.walk(ast.parse(x.read_text()))]
    modules = {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
    tops = {module.split(".")[0] for module in modules}
    others = tops - {*sys.stdlib_module_names, "thaw", "stages"}
    by_backend = {"jax", "torch"}
    known = packages_distributions()
    for top in sorted(others - INDIFFERENT - EXPORTING - by_backend):
        names = {name.lower().replace("_", "-") for name in known[top]}
        assert names & set(PACKAGES), top
