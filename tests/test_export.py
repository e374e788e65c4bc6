"""Exports: each by its own runtime, the card, the checks."""

import csv
import io
import json
import re
import sys

import numpy as np
import pytest
from conftest import thaw
from PIL import Image
from samples import draw_stripes, write_photographs

from benchmarks.project import ROOT
from thaw.commands import predict
from thaw.data.efficientnet import IMAGE, LOGITS
from thaw.data.images import decode_image, resize_image
from thaw.errors import InputError
from thaw.export.card import write_card
from thaw.export.formats import FORMATS, open_export, write_export
from thaw.export.scoring import (
    check_tolerance,
    load_originals,
    pick_rows,
    score_export,
)
from thaw.files.text import read_json
from thaw.linear.temperature import calibrate
from thaw.network.backend import keras
from thaw.network.model_info import ModelInfo, read_info
from thaw.network.plan import Plan
from thaw.prepare.sources import open_source
from thaw.run import params

RNG = np.random.default_rng(0)


# Each runs where neither Thaw nor TensorFlow nor Keras is at hand.
ALONE = (
    "import sys; sys.modules.update(thaw=None, tensorflow=None, keras=None)\n"
)

RUNTIMES = {
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession("models/export/classifier.onnx")
(result,) = session.run(["probabilities"], {"images": image[None]})
about = session.get_modelmeta().custom_metadata_map
classes = json.loads(about["classes"])
""",
    "litert": """
import zipfile
from ai_edge_litert.interpreter import Interpreter
path = "models/export/classifier.tflite"
interpreter = Interpreter(path)
(given,) = interpreter.get_input_details()
(made,) = interpreter.get_output_details()
interpreter.resize_tensor_input(given["index"], image[None].shape)
interpreter.allocate_tensors()
interpreter.set_tensor(given["index"], image[None])
interpreter.invoke()
result = interpreter.get_tensor(made["index"])
classes = zipfile.ZipFile(path).read("labels.txt").decode().splitlines()
""",
    "openvino": """
sys.modules["openvino_telemetry"] = None
import openvino
core = openvino.Core()
model = core.read_model("models/export/openvino/classifier.xml")
hint = {"INFERENCE_PRECISION_HINT": "f32"}
result = core.compile_model(model, "CPU", hint)(image[None])["probabilities"]
classes = json.loads(model.get_rt_info("thaw").value)["classes"]
""",
    "saved_model": """
del sys.modules["tensorflow"], sys.modules["keras"]
import tensorflow
loaded = tensorflow.saved_model.load("models/export/saved_model")
serve = loaded.signatures["serving_default"]
result = serve(images=tensorflow.constant(image[None]))["probabilities"].numpy()
with open("models/export/saved_model/assets.extra/thaw.json") as file:
    classes = json.load(file)["classes"]
""",
    "keras": """
del sys.modules["tensorflow"], sys.modules["keras"]
import keras, zipfile
path = "models/export/classifier.keras"
result = keras.models.load_model(path).predict(image[None], verbose=0)
about = zipfile.ZipFile(path).read("assets/thaw.json")
classes = json.loads(about)["classes"]
""",
}


def test_every_format_is_a_parameter_and_is_tested():
    formats = params.Export.model_json_schema()["properties"]["formats"]
    assert {*formats["items"]["enum"]} == {*FORMATS} == {*RUNTIMES}


def test_everything_before_an_export_is_brought_up_to_date(exported, tmp_path):
    assert exported.ran == ["export/dvc.yaml:export"]
    assert "up to date" in exported.dvc("status")
    project = exported.copy(tmp_path / "project")
    project.set(evaluate__top_k=2)
    ran = project.repro("--dry", "export/dvc.yaml")
    assert ran == ["check", "evaluate"]  # dry, nothing changes for export
    assert "export" not in project.dvc("metrics", "show")


def test_nothing_is_sent_or_left_in_home(reproduced, exported):
    """All stages, every export format, and `predict` run under the spy."""
    arguments = "predict", "models/finetuned.keras", "data/raw/down"
    assert thaw(exported, *arguments, **reproduced.spied).returncode == 0
    assert not reproduced.sockets.exists(), reproduced.sockets.read_text()
    written = {
        path.relative_to(reproduced.home).as_posix()
        for path in reproduced.home.rglob("*")
        if path.is_file()
    }
    # Keras's own settings and Matplotlib's list of fonts; no identities.
    strange = [
        name
        for name in written
        if name != ".keras/keras.json" and "matplotlib" not in name
    ]
    assert not strange


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_export_needs_nothing_but_its_runtime(
    exported, results, name, tmp_path
):
    scores, table, _, probabilities = results
    file = exported.folder / "data/raw" / table[0]["path"]
    image = np.asarray(decode_image(file.read_bytes()))
    assert image.shape != (32, 32, 3)
    if name == "litert":  # resizes stripes without antialiasing
        image = np.load(exported.folder / "data/prepared/test/images.npy")[0]
    np.save(tmp_path / "image.npy", image)
    program = (
        f"{ALONE}import json, numpy\n"
        f"image = numpy.load({str(tmp_path / 'image.npy')!r})\n"
        f"{RUNTIMES[name]}"
        "print(json.dumps([result.tolist(), classes]))"
    )
    done = exported.run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    (result,), classes = json.loads(done.stdout.splitlines()[-1])
    assert classes == ["across", "both", "down"]
    expected = calibrate(
        probabilities["finetuned"][:1], scores["finetuned"]["temperature"]
    )
    limit = 1e-3 if name in ("litert", "openvino") else 0.02
    assert np.abs(np.array(result) - expected[0]).max() < limit


def test_the_same_model_gives_the_same_exports(exported, tmp_path):
    project = exported.copy(tmp_path / "project")
    # SavedModel counts what was traced before it.
    project.set(export__formats=["keras", "saved_model", "onnx", "openvino"])
    done = project.run(sys.executable, "-m", "stages.export")
    assert done.returncode == 0, done.stderr
    files = [
        path
        for path in (project.folder / "models/export").rglob("*")
        if path.is_file() and path.name not in ("README.md", "checks.json")
    ]
    assert len(files) >= 6
    for path in files:
        other = exported.folder / path.relative_to(project.folder)
        assert path.read_bytes() == other.read_bytes(), path


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_export_crops_to_the_pixel(name, tmp_path):
    """96 and 220: sizes whose float32 reciprocals are a little small."""
    side = 96 if name == "litert" else 220
    images = keras.Input((side, side, 3), name=IMAGE)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(side // 2)(images))
    x = keras.layers.Dense(2, name=LOGITS)(x)
    model = keras.Model(images, keras.layers.Softmax()(x))
    row = np.linspace(-1e-3, 1e-3, 12)
    model.layers[-2].set_weights([np.stack([row, -row], 1), np.zeros(2)])
    info = ModelInfo(["a", "b"], 1.0, image_size=side, fit="crop")
    write_export(tmp_path, name, model, info)
    noise = RNG.integers(0, 256, (1, side, side, 3), np.uint8)
    noise[:, -1], noise[:, :, -1] = 255, 255
    expected = model.predict(noise, verbose=0)
    found = open_export(tmp_path, name)(noise)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_exports_are_scored_by_their_runtimes(exported, results):
    scores, *_ = results
    folder = exported.folder / "models/export"
    checks = json.loads((folder / "checks.json").read_text())
    assert checks["images"] == scores["n"]
    assert set(RUNTIMES) == set(checks["exports"])
    for score in checks["exports"].values():
        assert score["max_difference"] < 0.02
        assert score["accuracy"] == scores["finetuned"]["accuracy"]
        assert score["originals_gap"] == pytest.approx(
            score["originals_accuracy"] - score["accuracy"]
        )
        assert score["mib"] > 5
    for name in {*RUNTIMES} - {"litert"}:
        assert checks["exports"][name]["max_difference"] < 1e-4
    assert checks["exports"]["openvino"]["originals_max_difference"] < 1e-3
    card = (folder / "README.md").read_text()
    for text in (
        "## Intended use",
        "## Limitations",
        "classifier.onnx",
        "across",
        "`data/raw` (folder)",
    ):
        assert text in card
    assert "{" not in card


def test_an_exported_keras_file_predicts_as_the_shipped_one(exported):
    files = sorted(map(str, exported.folder.glob("data/raw/both/*.jpg")))
    first, second = (
        list(
            predict.Classifier(exported.folder / path, "float32").predict(
                files, top_k=1, threshold=0.0
            )
        )
        for path in ("models/finetuned.keras", "models/export/classifier.keras")
    )
    assert len(first) == 10
    for one, other in zip(first, second, strict=True):
        assert one.answer == other.answer
        assert one.top[0][1] == pytest.approx(other.top[0][1], abs=1e-4)


def test_an_export_with_other_probabilities_is_refused():
    reference = np.array([[0.9, 0.1], [0.2, 0.8]])
    labels = np.array([0, 1])
    score = score_export(reference + 0.05, reference, reference, labels)
    assert score["max_difference"] == pytest.approx(0.05)
    assert score["accuracy"] == 1 and score["originals_gap"] == 0
    check_tolerance({"onnx": score}, 0.06)
    with pytest.raises(InputError, match=r"export onnx differs by 0.05"):
        check_tolerance({"onnx": score}, 0.04)
    broken = score_export(reference * np.nan, reference, reference, labels)
    with pytest.raises(InputError, match="differs by nan"):
        check_tolerance({"onnx": broken}, 0.5)


def test_the_card_names_the_data_that_were_used(exported, tmp_path):
    folder, p = exported.folder, params.load(ROOT / "params.yaml")
    p.prepare.name = "left_over"

    def write(source: str) -> str:
        p.prepare.source = source
        write_card(
            tmp_path / "card.md",
            params=p,
            info=read_info(folder / "models/finetuned.keras"),
            plan=Plan.read(folder / "data/activations/plan.json"),
            prepare=read_json(folder / "metrics/details/prepare.json"),
            evaluate=read_json(folder / "metrics/details/evaluate.json"),
            exports=read_json(folder / "models/export/checks.json")["exports"],
            checked=6,
        )
        return (tmp_path / "card.md").read_text()

    assert "from\n`digits`." in write("digits")
    assert "from\n`data/README.md` (folder)." in write("folder")
    assert "from\n`data/README.md` (table)." in write("table")
    card = write("tfds")
    assert "from\n`left_over` (tfds)." in card
    assert "on 6 test images" in card
    assert (
        "more than 128 pixels a side" in card
    )  # four times 32, as docs/deploy.md has


def test_images_to_check_cover_the_classes():
    labels = np.repeat([0, 1, 2], [100, 20, 3])
    rows = pick_rows(labels, 33)
    assert list(np.bincount(labels[rows])) == [15, 15, 3]
    assert list(rows) == sorted(set(rows.tolist()))
    assert list(pick_rows(labels, 33)) == list(rows)
    assert list(pick_rows(labels[:5], 33)) == [0, 1, 2, 3, 4]
    many = pick_rows(np.arange(100), 33)  # not only classes at the front
    assert len(many) == 33 and many[-1] > 80


@pytest.mark.parametrize("gone", ["down/01.jpg", "down/02.jpg"])
def test_a_missing_test_image_is_named(tmp_path, gone):
    write_photographs(tmp_path, each=5)

    def open_folder():
        return open_source("folder", str(tmp_path))

    index = [
        {"path": item.path, "id": item.read().identity}
        for item in open_folder().items
    ]
    assert len(list(load_originals(open_folder(), index))) == 15
    (tmp_path / "down/00.jpg").rename(tmp_path / gone)
    with pytest.raises(InputError, match=r"down/0\d\.jpg is"):
        list(load_originals(open_folder(), index))
    (tmp_path / gone).unlink()
    with pytest.raises(InputError, match=r"test image down/0\d\.jpg is not"):
        list(load_originals(open_folder(), index))


# A share of the pixels may be one of 255 levels off: what Pillow rounds is not
# quite the same.
@pytest.mark.parametrize(("precision", "off"), [("f32", 0.05), ("bf16", 0.5)])
def test_openvino_resizes_as_pillow_at_any_size(precision, off):
    import openvino

    from thaw.export.resampling import resize_images

    images = openvino.opset15.parameter([-1, -1, -1, 3], np.uint8)
    network = openvino.Model([resize_images(images, 48)], [images], "resize")
    hint = {"INFERENCE_PRECISION_HINT": precision}
    run = openvino.Core().compile_model(network, "CPU", hint)
    for height, width in [(48, 48), (50, 61), (301, 200), (20, 33), (48, 700)]:
        noise = RNG.integers(0, 256, (2, height, width, 3), np.uint8)
        found = run(noise)[0].astype(int)
        expected = [
            resize_image(Image.fromarray(image), 48, "squash")
            for image in noise
        ]
        away = np.abs(found - expected)
        assert away.max() <= 2 and away.mean() < off


def test_openvino_compiles_nothing_for_an_image_size(exported):
    """OpenVINO would compile Interpolate anew for each size."""
    import openvino

    path = exported.folder / "models/export/openvino/classifier.xml"
    operations = openvino.Core().read_model(path).get_ops()
    kinds = {operation.get_type_name() for operation in operations}
    assert "Convolution" in kinds and "Interpolate" not in kinds


def test_the_page_runs_onnx_as_predict_does(exported, tmp_path):
    """The photograph is stored on its side, with a note that it is upright."""
    page = (ROOT / "docs/deploy.md").read_text()
    snippet = re.search(r"```python\n(import json\n.*?)```", page, re.DOTALL)[1]
    image = draw_stripes("across", RNG, 80)
    exif = Image.Exif()
    exif[274] = 6  # orientation: a quarter turn clockwise shows it upright
    photo = tmp_path / "photo.jpg"
    image.save(photo, exif=exif)
    program = f"{ALONE}{snippet}".replace('"photo.jpg"', repr(str(photo)))
    done = exported.run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    name, probability = done.stdout.split()
    predicted = thaw(
        exported, "predict", "models/finetuned.keras", str(photo),
        "--format", "csv",
    )  # fmt: skip
    (row,) = csv.DictReader(io.StringIO(predicted.stdout))
    assert name == row["class_1"]
    assert float(probability) == pytest.approx(
        float(row["probability_1"]), abs=0.02
    )
