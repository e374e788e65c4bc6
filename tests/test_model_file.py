"""Model files of others: each that is not Thaw's is refused in one line."""

import json
import sys
import zipfile

import h5py
import numpy as np
import pytest
from programs import run_python

from benchmarks.project import ROOT
from thaw.errors import InputError
from thaw.files.archives import check_archive, check_hdf5
from thaw.network.backbone import build_backbone
from thaw.network.backend import keras
from thaw.network.head import build_head, join_head
from thaw.network.model_file import load_model, save_model
from thaw.network.model_info import ModelInfo, read_info

INFO = ModelInfo(["a", "b", "c"], 1.0)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "head.keras"
    save_model(build_head(8, 3, 0.2), path, INFO)
    return path


@pytest.fixture
def rewrite(good, tmp_path):
    """Writes the good file with some members changed; None removes one."""

    def rewrite(**members):
        path = tmp_path / "bad.keras"
        with zipfile.ZipFile(good) as given, zipfile.ZipFile(path, "w") as new:
            for name in given.namelist():
                data = given.read(name)
                for key, change in members.items():
                    if key in name.replace(".", "_").replace("/", "_"):
                        data = change(data) if callable(change) else change
                if data is not None:
                    new.writestr(name, data)
        return path

    return rewrite


def change_layer(**values):
    """Changes the last layer but one, which is dense."""

    def change(data):
        config = json.loads(data)
        layer = config["config"]["layers"][-2]
        layer.update({k: v for k, v in values.items() if k != "config"})
        layer["config"].update(values.get("config", {}))
        return json.dumps(config)

    return change


def spoil_weights(value):
    def change(data):
        import io

        buffer = io.BytesIO(data)
        with h5py.File(buffer, "r+") as file:
            file["layers/dense/vars/0"][0, 0] = value
        return buffer.getvalue()

    return change


GADGETS = {
    "lambda": ("keras.layers", "Lambda"),
    "vocabulary": ("keras.layers", "StringLookup"),
    "saved": ("keras.layers", "TFSMLayer"),
    "get_file": ("keras.utils", "get_file"),
    "os": ("os", "system"),
}


@pytest.mark.parametrize("gadget", GADGETS)
@pytest.mark.parametrize("place", ["layer", "activation", "initializer"])
def test_a_class_that_thaw_does_not_write_is_refused(rewrite, gadget, place):
    module, name = GADGETS[gadget]
    held = {"class_name": name, "module": module, "config": {"fname": "x"}}
    key = {"activation": "activation", "initializer": "kernel_initializer"}
    change = held if place == "layer" else {"config": {key[place]: held}}
    with pytest.raises(InputError, match=f"holds {module}.{name}, not of"):
        load_model(rewrite(config_json=change_layer(**change)), (8,), 3)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"config_json": None}, "config.json"),
        ({"config_json": b"no JSON"}, "Expecting value"),
        ({"config_json": b"[" * 100_000}, "recursion"),
        ({"config_json": b"[]"}, "can't be loaded"),
        ({"model_weights": None}, "can't be loaded"),
        ({"model_weights": b"no HDF5"}, "can't be loaded"),
        ({"model_weights": lambda data: data[:5000]}, "can't be loaded"),
        ({"model_weights": spoil_weights(np.nan)}, "is not finite"),
        ({"model_weights": spoil_weights(np.inf)}, "is not finite"),
        (
            {"config_json": change_layer(config={"units": 10**9})},
            "1000000000 units",
        ),
        ({"config_json": change_layer(config={"units": "3"})}, "a layer of 3"),
    ],
)
def test_a_malformed_model_gives_one_line(rewrite, members, words):
    path = rewrite(**members)
    with pytest.raises(InputError, match=words) as refusal:
        load_model(path, (8,), 3)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04" + bytes(99)])
def test_what_is_no_archive_gives_one_line(tmp_path, data):
    path = tmp_path / "bad.keras"
    path.write_bytes(data)
    for read in (read_info, lambda path: load_model(path, (8,), 3)):
        with pytest.raises(InputError) as refusal:
            read(path)
        assert "\n" not in str(refusal.value)


def test_an_archive_that_is_cut_gives_one_line(good, tmp_path):
    data, path = good.read_bytes(), tmp_path / "bad.keras"
    for length in range(0, len(data), len(data) // 40):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            load_model(path, (8,), 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": -1.0}, "a temperature of -1.0"),
        ({"temperature": 0}, "a temperature of 0"),
        ({"temperature": float("nan")}, "a temperature of nan"),
        ({"temperature": "1"}, "a temperature of '1'"),
        ({"temperature": True}, "a temperature of True"),
        ({"classes": "abc"}, "classes that are no list"),
        ({"classes": ["a", 2]}, "classes that are no list"),
        ({"classes": ["a", "a", "b"]}, "the same class twice"),
        ({"classes": ["a"]}, "less than two"),
        ({"image_size": 1e9}, "an image size of"),
        ({"image_size": -64}, "an image size of -64"),
        ({"image_size": 64, "fit": "stretch"}, "fitted by 'stretch'"),
        ({"image_size": 64}, "fitted by ''"),
        ({"any_size": 1}, "any_size is 1"),
        ({"temperature": 10**400}, "a temperature of 1000"),
        ({"image_size": float("nan")}, "an image size of nan"),
        ({"image_size": float("inf")}, "an image size of inf"),
        ({"image_size": 64.0, "fit": "crop"}, "an image size of 64.0"),
    ],
    ids=str,
)
def test_what_travels_with_a_model_is_checked(rewrite, change, words):
    values = json.dumps(INFO.to_dict() | change)
    with pytest.raises(InputError, match=words):
        read_info(rewrite(thaw_json=values))


def test_a_zip_that_unpacks_to_far_more_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(64 * 2**20))
    for read in (check_archive, read_info):
        with pytest.raises(InputError, match="would become 67,"):
            read(path)


def test_an_archive_that_does_not_unpack_gives_one_line(good, tmp_path):
    path = tmp_path / "bad.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("assets/thaw.json", json.dumps(INFO.to_dict()))
    data = path.read_bytes()
    start = data.index(b"assets/thaw.json") + 30
    path.write_bytes(data[:start] + bytes(20) + data[start + 20 :])
    with pytest.raises(InputError, match="which classes it knows"):
        read_info(path)


def test_weights_of_another_kind_are_refused_unread(rewrite):
    """Keras would unpack an .npz, a zip archive in the archive."""
    path = rewrite(model_weights=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.weights.npz", b"")
    with pytest.raises(InputError, match=r"no item named 'model\.weights"):
        load_model(path, (8,), 3)


def test_hdf5_in_a_circle_ends(tmp_path):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("group/array", (4,))
        file["group/again"] = file["/"]
    check_archive(path)


def test_hdf5_with_a_zip_behind_it_is_hdf5(tmp_path):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (4 * 10**9,), chunks=(1000,))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b", "")
    with pytest.raises(InputError, match="would become 16,000,000,000"):
        check_archive(path)


def test_hdf5_of_anything_but_numbers_is_refused(tmp_path):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["words"] = ["a", "b"]
    with pytest.raises(InputError, match="words in it does not hold numbers"):
        check_archive(path)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "twice.keras"
    with (
        zipfile.ZipFile(path, "w") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("config.json", "{}")
        archive.writestr("config.json", "[]")
    with pytest.raises(InputError, match="it holds config"):
        check_archive(path)


def test_hdf5_that_becomes_far_more_or_leads_elsewhere_is_refused(tmp_path):
    def check(make, words):
        path = tmp_path / "a.weights.h5"
        path.unlink(missing_ok=True)
        with h5py.File(path, "w") as file:
            make(file)
        with path.open("rb") as file, pytest.raises(InputError, match=words):
            check_hdf5(file, path.stat().st_size)
        with pytest.raises(InputError, match="holds no weights"):
            build_backbone("EfficientNetB0", "file", path, 32)

    check(
        lambda file: file.create_dataset("a", (4 * 10**9,), chunks=(1000,)),
        "would become 16,000,000,000",
    )
    outside = h5py.ExternalLink("other.h5", "/a")
    check(lambda file: file.__setitem__("b", outside), "b in it is a link")
    check(
        lambda file: file.create_dataset(
            "c", (4,), "f4", external=[(tmp_path / "raw", 0, 16)]
        ),
        "c in it lies in another file",
    )


def test_what_thaw_writes_is_read(tmp_path):
    for name in ("EfficientNetB0", "EfficientNetV2B0"):
        backbone = build_backbone(name, None, "", 32)
        model = join_head(backbone, build_head(1280, 3, 0.2))
        save_model(model, tmp_path / "a.keras", INFO)
        again = load_model(tmp_path / "a.keras", (32, 32, 3), 3)
        assert again.count_params() == model.count_params()
        assert isinstance(again, keras.Model)


MODULES = ("numpy", "signal", "argparse", "json", "pathlib", "os")


@pytest.mark.parametrize("options", [["-m", "thaw"], ["-um", "thaw"]], ids=str)
def test_predict_runs_nothing_of_the_current_folder(tmp_path, good, options):
    """`python -m` puts that folder before all libraries."""
    for name in MODULES:
        said = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})"
        (tmp_path / f"{name}.py").write_text(said)
    program = (
        "import subprocess, sys\n"
        "done = subprocess.run(\n"
        f"    [{sys.executable!r}, *{options}, 'predict',"
        f" {str(good)!r}, '.'],"
        f" cwd={str(tmp_path)!r}, capture_output=True, text=True)\n"
        "print(done.returncode, done.stderr)\n"
    )
    said = run_python(program, PYTHONPATH=str(ROOT))
    assert "no picture there" in said
    assert not (tmp_path / "ran").exists()
