"""Rows that a stage finds in its last run, and does not compute again."""

import copy
import hashlib
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import draw_stripes, prepare, write_photographs
from test_survival import start_over

from thaw.data.activations import write_about
from thaw.data.facts import digest_pixels, match_digests
from thaw.files.text import read_yaml, write_json
from thaw.frozen.earlier import Earlier, find_earlier
from thaw.frozen.engines import freeze_model
from thaw.frozen.passes import FrozenPass
from thaw.network.backend import keras
from thaw.prepare.sources import open_source
from thaw.stage.checkpoints import Checkpoint
from thaw.stage.previous import TERMS, Previous, flatten, open_last_run

RNG = np.random.default_rng(0)

words = st.tuples(st.integers(0, 3), st.integers(0, 3))


@given(st.lists(words, min_size=1), st.lists(words, min_size=1))
def test_digests_match_where_both_words_do(wanted, earlier):
    places = match_digests(np.array(wanted, "u8"), np.array(earlier, "u8"))
    firsts = {first for first, _ in earlier}
    for digest, place in zip(wanted, places, strict=True):
        if place >= 0:
            assert earlier[place] == digest
        elif len(firsts) == len(earlier):
            assert digest not in earlier


def list_files(folder):
    """Content of each file below a folder, by its path."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def open_photographs(folder):
    return open_source("folder", str(folder))


def test_prepare_decodes_only_what_it_does_not_know(
    tmp_path, monkeypatch, capsys
):
    photographs = tmp_path / "photographs"
    write_photographs(photographs, each=10)
    copy = photographs / "down/copy.jpg"  # under two labels: in no split
    shutil.copy(photographs / "across/03.jpg", copy)
    prepare(open_photographs(photographs), tmp_path / "first")
    capsys.readouterr()

    def refuse(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr("thaw.prepare.decode.decode", refuse)
        copy.unlink()
        (photographs / "down/04.jpg").rename(photographs / "across/down.jpg")
        prepare(
            open_photographs(photographs),
            tmp_path / "second",
            before=tmp_path / "first",
        )
    assert "0 of 30 images are new" in capsys.readouterr().out
    prepare(open_photographs(photographs), tmp_path / "fresh")
    assert list_files(tmp_path / "second") == list_files(tmp_path / "fresh")
    prepare(
        open_photographs(photographs),
        tmp_path / "larger",
        before=tmp_path / "first",
        image_size=40,
    )
    assert "are new" not in capsys.readouterr().out


class Numbers:
    """Gathers images of noise by number, and counts the views."""

    def __init__(self, numbers):
        self.images = np.stack(
            [
                np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8)
                for n in numbers
            ]
        )
        self.digests = np.stack([digest_pixels(x) for x in self.images])
        self.count = 0

    def __call__(self, rows, view_numbers):
        self.count += len(rows)
        views = view_numbers[:, None, None, None].astype(np.uint8)
        return self.images[rows] + 7 * views


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="kept")(images)
    return freeze_model(keras.Model(images, x), "float32", "uint8")


@pytest.fixture
def write(network, tmp_path):
    def write(name, numbers, earlier=None, kind=Checkpoint, dtype="float16"):
        """Passes images through the network; how many passed."""
        splits = {"train": Numbers(numbers), "test": Numbers(numbers[::2])}
        digests = {split: x.digests for split, x in splits.items()}
        (tmp_path / name).mkdir(exist_ok=True)
        previous = earlier and Previous(FakeStage(), tmp_path, [])
        FrozenPass(
            network,
            {"kept": dtype},
            rows={split: len(x.images) for split, x in splits.items()},
            views=2,
            gather=splits,
            label="writing",
            earlier=find_earlier(previous, earlier, digests, {"by": "it"}),
        ).write(kind(tmp_path / name))
        shutil.rmtree(tmp_path / name / "digests", ignore_errors=True)
        write_about(tmp_path / name, digests, {"by": "it"})
        return sum(x.count for x in splits.values())

    return write


class FakeStage:
    outs = ()


NUMBERS = list(range(40))
CHANGED = [*range(50, 55), *range(3, 40), 60, *range(3)]


def list_arrays(folder):
    return {
        path.name: path.read_bytes() for path in (folder / "kept").iterdir()
    }


def test_a_pass_runs_the_rows_that_are_new(write, tmp_path, capsys):
    write("first", NUMBERS)
    capsys.readouterr()
    passed = write("second", CHANGED, earlier="first")
    assert "of 69 images are new" in capsys.readouterr().out
    all_passed = write("fresh", CHANGED)
    assert list_arrays(tmp_path / "second") == list_arrays(tmp_path / "fresh")
    assert passed < all_passed / 2
    assert write("moved", CHANGED[::-1], earlier="second") < all_passed / 2
    assert write("same", CHANGED, earlier="second") == 0


def test_another_way_of_computing_runs_all_rows(write, tmp_path):
    write("first", NUMBERS)
    write_json(tmp_path / "first/about.json", {"by": "another"})
    assert write("second", NUMBERS, earlier="first") > 80


def test_half_precision_is_no_start_for_full_precision(write, tmp_path):
    write("first", NUMBERS)
    assert write("second", NUMBERS, earlier="first", dtype="float32") > 80
    write("full", NUMBERS, dtype="float32")
    assert write("half", NUMBERS, earlier="full") == 0
    assert list_arrays(tmp_path / "half") == list_arrays(tmp_path / "first")


class CutOff(Checkpoint):
    """Fails at the third note."""

    notes = 0

    def write(self, **note):
        super().write(**note)
        self.notes += 1
        if self.notes == 2:
            raise KeyboardInterrupt


def test_a_pass_that_was_cut_off_goes_on_with_what_is_new(write, tmp_path):
    write("first", NUMBERS)
    with pytest.raises(KeyboardInterrupt):
        write("second", CHANGED, earlier="first", kind=CutOff)
    write("second", CHANGED, earlier="first")
    write("fresh", CHANGED)
    assert list_arrays(tmp_path / "second") == list_arrays(tmp_path / "fresh")


def test_copied_values_beyond_a_range_are_noticed(tmp_path):
    (tmp_path / "kept").mkdir()
    np.save(tmp_path / "kept/test-0.npy", np.float32([[1.0], [70000.0]]))
    half = np.zeros((1, 1), np.float16)
    for place, overflows in ((0, False), (1, True)):
        earlier = Earlier(tmp_path, {"test": np.array([place])}, "")
        assert earlier.copy("kept", "test", 0, half) == overflows


FROZEN = ("data/prepared", "data/features", "data/activations")


def list_frozen(project):
    hashes = project.list_hashes()
    return {path: hashes[path] for path in FROZEN}


def test_changed_photographs_cost_what_changed(reproduced, tmp_path):
    """Added, removed and relabelled ones, to the bytes of a fresh run."""
    project = reproduced.copy(tmp_path / "project")
    raw = project.folder / "data/raw"
    draw_stripes("down", RNG, 50).save(raw / "down/new.jpg")
    (raw / "both/01.jpg").unlink()
    (raw / "across/02.jpg").rename(raw / "both/moved.jpg")
    planned = project.run("python", "-m", "thaw", "plan").stdout
    assert "1 of 30 images are new" in planned
    output = project.dvc("repro", "prefix")
    assert "1 of 30 images are new, and were decoded" in output
    assert output.count("images are new") == 3
    fresh = start_over(project, tmp_path / "fresh")
    output = fresh.dvc("repro", "prefix")
    assert "are new" not in output
    assert list_frozen(fresh) == list_frozen(project)
    (raw / "both/moved.jpg").rename(raw / "down/moved.jpg")
    output = project.dvc("repro", "extract")
    assert output.count("0 of 30 images are new") == 2
    output = project.dvc("repro", "--force", "--single-item", "extract")
    assert "are new" not in output and "extracting: " in output


FREE = {
    "prepare": {"prepare.seed": 1, "prepare.image_size": 40},
    "extract": {"extract.views": 1, "extract.tap": False},
    "prefix": {"finetune.views": 1},
}


@pytest.mark.parametrize("stage", FREE)
def test_a_parameter_that_nobody_listed_has_all_rows_computed(
    reproduced, monkeypatch, stage
):
    """Those that change no row are listed, not those that do."""
    monkeypatch.chdir(reproduced.folder)
    values = read_yaml("params.yaml")
    with open_last_run(stage, values) as last:
        assert last.others == []
        names = list_names(last.stage)
    for name in names:
        changed = copy.deepcopy(values)
        *section, key = name.split(".")
        inside = changed[section[0]] if section else changed
        inside[key] = FREE[stage].get(name, "another")
        with open_last_run(stage, changed) as last:
            free = name in TERMS[stage].params
            assert last.others == ([] if free else [name])
    section = {"prepare": "prepare"}.get(stage, "augment")
    changed = copy.deepcopy(values)
    changed[section]["new"] = 1  # a parameter that came later
    with open_last_run(stage, changed) as last:
        assert last.others == [f"{section}.new"]


def list_names(stage):
    """Parameters of a stage, one by one."""
    return {
        name
        for dep in stage.params
        for name in flatten(dep.hash_info.value or {})
    }


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("prepare", "data/prepared/train/images.npy"),
        ("extract", "data/features/pooled/train-0.npy"),
    ],
)
def test_a_byte_that_flips_in_the_cache_reaches_no_result(
    reproduced, tmp_path, stage, path
):
    project = reproduced.copy(tmp_path / "project")
    file = project.folder / path
    content = bytearray(file.read_bytes())
    md5 = hashlib.md5(content).hexdigest()
    cached = project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    content[-1] ^= 1
    cached.chmod(0o644)
    cached.write_bytes(content)
    cached.chmod(0o444)
    (project.folder / "data/raw/both/01.jpg").unlink()
    said = project.dvc("repro", stage)
    assert f"DVC's cache held a broken copy of {path}" in said
    fresh = start_over(project, tmp_path / "fresh")
    fresh.dvc("repro", stage)
    hashes = project.list_hashes()
    folder = "/".join(path.split("/")[:2])
    assert hashes[folder] == fresh.list_hashes()[folder]
