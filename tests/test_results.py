"""Scores, comparisons, predictions, exports, and what a change would cost."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import RERUNS, ROOT, Project, draw_stripes, write_photographs
from dvc.repo import Repo
from PIL import Image
from sklearn import metrics as sk

from thaw.commands import plan, predict
from thaw.commands.compare import match_images
from thaw.commands.estimates import ESTIMATES
from thaw.commands.reruns import find_changes, list_reruns
from thaw.data.images import decode_image, resize_image
from thaw.errors import InputError
from thaw.evaluate.comparison import compare_hits, judge_gain, measure_interval
from thaw.evaluate.scores import (
    measure_calibration,
    rank_labels,
    score_predictions,
)
from thaw.evaluate.table import read_hits
from thaw.evaluate.verdict import describe_scores
from thaw.export.card import write_card
from thaw.export.formats import FORMATS, open_export, write_export
from thaw.export.scoring import (
    check_tolerance,
    load_originals,
    pick_rows,
    score_export,
)
from thaw.files.text import read_json, read_yaml
from thaw.network.backend import keras
from thaw.network.model_file import ModelInfo, read_info
from thaw.network.plan import Plan
from thaw.network.temperature import calibrate, fit_temperature
from thaw.prepare.sources import open_source
from thaw.run import params
from thaw.run.efficientnet import IMAGE, LOGITS

RNG = np.random.default_rng(0)
CLASSES = ("across", "both", "down")


def read(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_those_of_a_hand_count():
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]
    )
    labels = np.array([0, 1, 1, 2])
    scores = score_predictions(probabilities, labels, 1.0, top_k=2)
    assert scores["accuracy"] == 0.75 and scores["top2"] == 1
    expected = -np.log([0.7, 0.6, 0.3, 0.6]).mean()
    assert scores["loss"] == pytest.approx(expected)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    # Wilson's interval for 3 of 4.
    assert scores["accuracy_ci_low"] == pytest.approx(0.3006, abs=1e-4)
    assert scores["accuracy_ci_high"] == pytest.approx(0.9544, abs=1e-4)


@pytest.mark.parametrize("top_k", [3, 5])
def test_top_k_of_no_more_classes_is_left_out(top_k):
    thirds = np.full((4, 3), 1 / 3)
    scores = score_predictions(thirds, np.arange(4) % 3, 1.0, top_k)
    assert not [key for key in scores if key.startswith("top")]


def test_calibration_error_is_confidence_minus_accuracy():
    sure = np.tile([0.9, 0.1], (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    assert measure_calibration(sure, labels) == pytest.approx(0.3)
    assert measure_calibration(np.tile([1.0, 0.0], (5, 1)), np.zeros(5)) == 0


def test_a_rank_is_a_place_and_ties_go_to_the_first_class():
    probabilities = np.array(
        [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2]]
    )
    assert rank_labels(probabilities, np.array([2, 0, 1])).tolist() == [3, 1, 2]


def test_temperature_scaling_undoes_too_much_confidence():
    logits = RNG.normal(size=(4000, 5))
    labels = (logits + RNG.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.1)
    proud = np.exp(3 * logits) / np.exp(3 * logits).sum(axis=1, keepdims=True)
    modest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibrate(proud, 3.0), modest, rtol=1e-4)
    assert measure_calibration(modest, labels) < 0.03
    assert measure_calibration(proud, labels) > 0.2


def test_without_an_error_there_is_nothing_to_fit():
    logits = 5 * np.eye(3)
    assert fit_temperature(logits, np.arange(3)) == 1


def test_certain_predictions_stay_finite():
    certain = np.array([[1, 0, 0]], np.float32)
    assert np.isfinite(calibrate(certain, 0.2)).all()


def pair(both, before, after, neither):
    """Hits of two models: images that both, one or none of them has right."""
    first = [1] * both + [1] * before + [0] * after + [0] * neither
    second = [1] * both + [0] * before + [1] * after + [0] * neither
    return np.array(first, bool), np.array(second, bool)


def test_the_comparison_is_the_published_one():
    """Newcombe (1998), Table II: 20, 12, 2 and 16 of 50, method 10."""
    pairs = pair(20, 2, 12, 16)
    low, high = measure_interval(*pairs, confidence=0.95)
    assert low == pytest.approx(0.0562, abs=1e-4)
    assert high == pytest.approx(0.3292, abs=1e-4)
    found = compare_hits(*pairs)
    assert found.difference == pytest.approx(0.2)
    assert found.low < low < high < found.high
    # Exact McNemar: 2 or fewer, or 12 or more, of 14 at even odds.
    assert found.p_value == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert found.judge() == "within noise"
    assert compare_hits(*pair(20, 2, 16, 12)).judge() == "better"
    assert compare_hits(*pair(20, 16, 2, 12)).judge() == "worse"


def test_what_is_not_sure_is_noise():
    assert compare_hits(*pair(90, 3, 7, 0)).judge() == "within noise"
    assert compare_hits(*pair(10, 0, 0, 5)).p_value == 1
    # Enough by itself, not among many.
    found = compare_hits(*pair(20, 2, 16, 12))
    assert found.judge(0.2) == "within noise"


def test_a_shipped_head_is_not_compared_with_itself():
    gain = compare_hits(*pair(20, 1, 0, 9))
    assert judge_gain(gain, "head") == {
        "gain": gain.difference,
        "gain_verdict": "head shipped",
    }
    assert judge_gain(gain, "finetuned")["gain_p_value"] == 1
    score = {"accuracy": 0.7, "accuracy_ci_low": 0.6, "accuracy_ci_high": 0.8}
    scores = {"head": score, "finetuned": score}
    lines = list(describe_scores(scores, gain, "head"))
    assert lines == [
        "head alone, shipped: accuracy 0.700, 95 % interval 0.600 to 0.800",
        "fine-tuning: no better than the head alone on validation",
    ]
    lines = list(describe_scores(scores, gain, "finetuned"))
    assert len(lines) == 3
    assert "within noise, -0.033, 99 % interval" in lines[2]
    assert "of 30 images 0 right only after it, 1 only before" in lines[2]


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


@pytest.mark.parametrize("model", ["head", "finetuned"])
def test_metrics_can_be_recomputed_from_the_table(results, model):
    scores, table, labels, probabilities = results
    scores, predicted = scores[model], probabilities[model]
    got = np.array([row[model] for row in table])
    actual = np.array([row["actual"] for row in table])
    assert scores["accuracy"] == sk.accuracy_score(actual, got)
    assert scores["macro_f1"] == pytest.approx(
        sk.f1_score(actual, got, average="macro", zero_division=0)
    )
    assert scores["loss"] == pytest.approx(sk.log_loss(labels, predicted))
    calibrated = calibrate(predicted, scores["temperature"])
    assert scores["calibrated_loss"] == pytest.approx(
        sk.log_loss(labels, calibrated)
    )
    rows = np.arange(len(labels))
    for column, values in {
        "probability": predicted.max(axis=1),
        "calibrated": calibrated.max(axis=1),
        "actual_probability": predicted[rows, labels],
        "actual_rank": rank_labels(predicted, labels),
    }.items():
        read = np.array([row[f"{model}_{column}"] for row in table])
        assert np.array_equal(read.astype(np.float32), np.float32(values))


def test_each_class_has_its_precision_and_recall(reproduced, results):
    _, _, labels, probabilities = results
    predicted = probabilities["finetuned"].argmax(axis=1)
    precision, recall, *_ = sk.precision_recall_fscore_support(
        labels, predicted, zero_division=0
    )
    rows = [
        row
        for row in read(reproduced.folder / "plots/scores.csv")
        if row["model"] == "finetuned"
    ]
    assert [float(row["precision"]) for row in rows] == precision.tolist()
    assert [float(row["recall"]) for row in rows] == recall.tolist()


def test_the_gain_is_judged_pair_by_pair(results):
    scores, _, labels, probabilities = results
    head, finetuned = (
        p.argmax(axis=1) == labels for p in probabilities.values()
    )
    expected = compare_hits(head, finetuned)
    assert scores["gain"] == expected.difference
    assert scores["gain_p_value"] == expected.p_value
    assert scores["gain_verdict"] == expected.judge()
    assert scores["gain_ci_low"] <= scores["gain"] <= scores["gain_ci_high"]


def thaw(project, *arguments, **env):
    done = project.run(sys.executable, "-m", "thaw", *arguments, **env)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def committed(reproduced, tmp_path_factory):
    """With its results in Git, and its predictions free to change."""
    project = reproduced.copy(tmp_path_factory.mktemp("committed") / "project")
    for command in (["add", "--all"], ["commit", "--quiet", "-m", "results"]):
        subprocess.run(["git", *command], cwd=project.folder, check=True)
    return project


def test_two_runs_are_compared_by_image(committed):
    path = committed.folder / "metrics/predictions.csv"
    table = path.read_text()
    done = thaw(committed, "compare")
    assert done.returncode == 0 and ": within noise" in done.stdout
    with path.open(newline="") as file:
        images, hits = read_hits(file, "finetuned")
    assert [name for _, name in images] and len(hits) == len(images)

    # All wrong, and in another order.
    head, *lines = table.splitlines()
    column = head.split(",").index("finetuned")
    lines = [line.split(",") for line in reversed(lines)]
    for line in lines:
        line[column] = "nothing"
    path.write_text("\n".join([head, *map(",".join, lines)]) + "\n")
    done = thaw(committed, "compare", "HEAD", "--json")
    about = json.loads(done.stdout)
    assert about["after"] == 0 and about["difference"] < 0
    assert about["p_value"] == pytest.approx(2 * 0.5 ** hits.sum())
    assert about["lost"] == hits.sum() and about["n"] == len(images)
    assert set(about["classes"]) == {"across", "both", "down"}

    # Another test set: one image new, one with another label.
    path.write_text(table)
    new, relabelled = lines[0], lines[1]
    old = table.replace(new[0], "0" * 64)
    actual = head.split(",").index("actual")
    row = next(line for line in old.splitlines() if relabelled[0] in line)
    other = row.split(",")
    other[actual] = next(x for x in CLASSES if x != other[actual])
    path.write_text(old.replace(row, ",".join(other)))
    done = thaw(committed, "compare", "--json")
    about = json.loads(done.stdout)
    assert about["n"] == len(images) - 2 and about["relabelled"] == 1
    assert about["images_before"] == about["images_after"] == len(images)
    done = thaw(committed, "compare")
    assert (
        f"on the {len(images) - 2} test images of both (this run has "
        f"{len(images)}, HEAD {len(images)}; 1 more under other labels)"
    ) in done.stdout

    # And one that has nothing of the first.
    path.write_text(
        "\n".join([head, *(f"0{x}" for x in table.splitlines()[1:])])
    )
    done = thaw(committed, "compare")
    assert done.returncode == 1 and "no test image is in both" in done.stderr
    path.write_text(table)
    for revs in (["nowhere"], ["HEAD", "nowhere"]):
        done = thaw(committed, "compare", *revs)
        assert "nowhere is no Git revision and no DVC exp" in done.stderr


def test_two_revisions_are_compared_beside_the_workspace(committed, tmp_path):
    project = committed.copy(tmp_path / "project")
    path = project.folder / "metrics/predictions.csv"
    head, *lines = path.read_text().splitlines()
    column = head.split(",").index("finetuned")
    wrong = [line.split(",") for line in lines]
    hits = sum(x[column] == x[head.split(",").index("actual")] for x in wrong)
    for line in wrong:
        line[column] = "nothing"
    path.write_text("\n".join([head, *map(",".join, wrong)]) + "\n")
    project.dvc("commit", "--force", "evaluate")
    for command in (["add", "--all"], ["commit", "--quiet", "-m", "worse"]):
        subprocess.run(["git", *command], cwd=project.folder, check=True)
    # Below the clone's root, too.
    done = Project(project.folder / "data").run(
        sys.executable, "-m", "thaw", "compare", "HEAD~1",
        PYTHONPATH=str(project.folder),
    )  # fmt: skip
    assert "finetuned, this run against HEAD~1, on the same" in done.stdout
    path.unlink()
    done = thaw(project, "compare", "HEAD~1", "HEAD", "--json")
    about = json.loads(done.stdout)
    assert about["rev"] == "HEAD~1" and about["other"] == "HEAD"
    assert about["lost"] == hits > 0 and about["after"] == 0
    done = thaw(project, "compare", "HEAD", "HEAD~1")
    assert "finetuned, HEAD~1 against HEAD, on the same" in done.stdout
    assert f"{hits} images right only after, 0 only before" in done.stdout
    assert not path.exists()
    changes = ["git", "status", "--porcelain"]
    assert not subprocess.check_output(changes, cwd=project.folder)


def test_images_are_matched_by_bytes_and_label():
    before = [
        ("a", "x"),
        ("b", "x"),
        ("c", "y"),
        ("d", "y"),
        ("a", "x"),
        ("a", "x"),
    ]
    after = [("d", "y"), ("c", "x"), ("a", "x"), ("e", "x"), ("a", "x")]
    shared = match_images(before, after)
    assert shared.classes.tolist() == ["x", "x", "y"]
    assert [before[i] for i in shared.before] == [
        after[i] for i in shared.after
    ]
    # c has another label; one of the three a has no match, b and e none at all.
    assert shared.relabelled == 1


def test_the_model_is_an_artifact_of_the_registry(committed, tmp_path):
    tag = ["git", "tag", "-a", "classifier@v1.0.0", "-m", "first"]
    subprocess.run(tag, cwd=committed.folder, check=True)
    target = tmp_path / "model.keras"
    committed.dvc("artifacts", "get", ".", "classifier", "--out", str(target))
    shipped = committed.folder / "models/finetuned.keras"
    assert target.read_bytes() == shipped.read_bytes()


def test_a_model_brings_its_classes_temperature_and_size(reproduced):
    info = read_info(reproduced.folder / "models/finetuned.keras")
    assert info.classes == ["across", "both", "down"]
    assert info.image_size == 32 and info.fit == "squash"
    metrics = json.loads(
        (reproduced.folder / "metrics/details/finetune.json").read_text()
    )
    assert info.temperature == metrics["temperature"]


def test_predictions_are_those_of_the_test_split(reproduced, results, tmp_path):
    """The original files, through the program, against `evaluate`'s table."""
    scores, table, _, probabilities = results
    files = [f"data/raw/{row['path']}" for row in table]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    done = thaw(
        reproduced, "predict", "models/finetuned.keras", *files, str(bad),
        "--format", "csv", "--top-k", "9", "--threshold", "0.5",
    )  # fmt: skip
    assert done.returncode == 0
    assert f"can't read {bad}" in done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["path"] for row in rows] == files
    calibrated = calibrate(
        probabilities["finetuned"], scores["finetuned"]["temperature"]
    )
    answers = 0
    for row, expected, one in zip(rows, calibrated, table, strict=True):
        assert row["class_1"] == one["finetuned"]
        assert float(row["probability_1"]) == pytest.approx(
            expected.max(), abs=1e-4
        )
        total = sum(float(row[f"probability_{k}"]) for k in (1, 2, 3))
        assert total == pytest.approx(1, abs=1e-4)
        likely = float(row["probability_1"]) >= 0.5
        assert row["prediction"] == (row["class_1"] if likely else "")
        answers += likely
    assert answers > 0


@pytest.fixture
def inside(reproduced, monkeypatch):
    monkeypatch.chdir(reproduced.folder)
    return reproduced


def test_a_folder_becomes_json(inside, capsys):
    predict.main(
        "models/finetuned.keras", ["data/raw/down"], "json", 2, 0.0, "float32"
    )
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 10 and len(found[0]["top"]) == 2


@pytest.mark.parametrize(
    ("model", "path", "message"),
    [
        ("models/finetuned.keras", "data/raw/notes.txt", "none of these files"),
        ("models/finetuned.keras", "nowhere.jpg", "none of these files"),
        ("models/head.keras", "data/raw", "takes features"),
        ("dvc.yaml", "data/raw", r"reads \.keras files only"),
        ("models/nope.keras", "data/raw", r"models/nope\.keras is not there"),
        ("photo.keras", "data/raw", "which classes it knows"),
    ],
)
def test_what_can_not_be_predicted_is_one_line(inside, model, path, message):
    Path("photo.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match=message):
        predict.main(model, [path], "table", 1, 0.0, "float32")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        *RERUNS,
        (
            {"finetune__blocks": 5},
            ["prefix", "finetune", "evaluate", "report"],
        ),
    ],
    ids=lambda x: "-".join(x) or "nothing",
)
def test_a_plan_lists_what_dvc_runs(inside, change, expected):
    values = yaml.safe_load(Path("params.yaml").read_text())
    for name, value in change.items():
        section, key = name.split("__")
        values[section][key] = value
    found = list_reruns(values, find_changes())
    assert sorted(found) == sorted(expected)


def test_a_plan_takes_a_number_for_what_dvc_takes_it_for(
    reproduced, tmp_path, monkeypatch
):
    """However it is written, there and in DVC's own lock."""
    project = reproduced.copy(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    text, lock = (Path(x).read_text() for x in ("params.yaml", "dvc.lock"))
    assert text.count("learning_rate: 0.002") == 1
    Path("dvc.lock").write_text(
        lock.replace("learning_rate: 0.002", "learning_rate: 5e-05")
    )
    for rate, same in {
        "5e-05": True,
        "0.00005": True,
        "5e-5": True,
        "5.0E-05": True,
        "0.0005": False,
        "5": False,
    }.items():
        Path("params.yaml").write_text(
            text.replace("learning_rate: 0.002", f"learning_rate: {rate}")
        )
        rerun = list_reruns(read_yaml("params.yaml"), find_changes())
        with Repo() as repo:
            status = set(repo.status("dvc.yaml")) - {"check"}
        assert bool(status) == bool(rerun) == (not same), rate
        assert status <= set(rerun)


def test_a_plan_tells_depth_time_and_bytes_and_changes_nothing(reproduced):
    before = (reproduced.folder / "params.yaml").read_bytes()
    done = thaw(reproduced, "plan", "-S", "finetune.blocks=3")
    assert done.returncode == 0, done.stderr
    assert "thawed: block6c, block6d, block7a" in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "extract" not in lines
    for stage in ("prefix", "finetune", "evaluate", "all"):
        assert " s " in lines[stage] and "B" in lines[stage]
    assert (reproduced.folder / "params.yaml").read_bytes() == before
    done = thaw(reproduced, "plan", "-S", "finetune.blocks=1,17")
    assert done.returncode == 1 and "allowed: 0 to 16" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = thaw(reproduced, "plan", "-S", "finetune.block=1")
    assert done.returncode == 1 and "did you mean blocks?" in done.stderr


def test_a_sweep_is_planned_a_line_for_each_combination(inside, capsys):
    plan.main(
        ["finetune.blocks=1,3", "finetune.learning_rate=0.001,2e-3", "seed=17"]
    )
    head, *lines, _, _ = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["blocks", "learning_rate"]
    found = [(*line.split()[:2], line.split("_add")[1]) for line in lines]
    assert [x[:2] for x in found] == [
        ("1", "0.001"), ("1", "0.002"), ("3", "0.001"), ("3", "0.002"),
    ]  # fmt: skip
    assert found[0][2].split()[:2] == ["finetune", "evaluate"]
    assert found[1][2].split() == ["nothing"] and " 0.0 s " in lines[1]
    assert found[3][2].split()[:3] == ["prefix", "finetune", "evaluate"]
    assert "block6d_add" in lines[0] and "block6b_add" in lines[2]
    assert max(map(len, [head, *lines])) <= 100


def test_every_stage_has_an_estimate():
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert {*stages} == {"check", *ESTIMATES}


def test_a_stage_without_an_estimate_is_planned_too(
    inside, capsys, monkeypatch
):
    monkeypatch.delitem(ESTIMATES, "report")
    plan.main(["evaluate.top_k=2"])
    lines = capsys.readouterr().out.splitlines()
    assert any(x.split() == ["report", "unknown", "unknown"] for x in lines)


def test_a_plan_counts_the_start_of_keras(reproduced):
    """The clock starts before anything imports it."""
    program = (
        "import sys, types\n"
        "from thaw.commands import estimates, plan, trials\n"
        "from thaw.run import params\n"
        "calls = []\n"
        "def tell(): calls.append('keras' in sys.modules); return len(calls)\n"
        "trials.time = types.SimpleNamespace(perf_counter=tell)\n"
        "estimates.Workload(params.load(), None).plan\n"
        "assert calls[:2] == [False, True], calls\n"
    )
    done = reproduced.run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr


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
    """All stages, every format of export, and what people run most."""
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
    image = decode_image(file.read_bytes())
    assert image.size != (32, 32)
    np.save(tmp_path / "image.npy", np.asarray(image))
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
    # LiteRT resizes stripes without antialiasing.
    limit = {"litert": 0.5, "openvino": 1e-3}.get(name, 0.02)
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


@pytest.mark.parametrize("name", ["saved_model", "onnx", "litert", "openvino"])
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


def test_an_export_that_says_something_else_is_refused():
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
    card = write("tfds")
    assert "from\n`left_over` (tfds)." in card
    assert "on 6 test images" in card
    assert (
        "more than 128 pixels a side" in card
    )  # four times 32, as docs/deploy.md has


def test_images_to_check_are_spread_over_the_classes():
    labels = np.repeat([0, 1, 2], [100, 20, 3])
    rows = pick_rows(labels, 33)
    assert list(np.bincount(labels[rows])) == [15, 15, 3]
    assert list(rows) == sorted(set(rows.tolist()))
    assert list(pick_rows(labels, 33)) == list(rows)
    assert list(pick_rows(labels[:5], 33)) == [0, 1, 2, 3, 4]
    many = pick_rows(np.arange(100), 33)  # not only classes at the front
    assert len(many) == 33 and many[-1] > 80


@pytest.mark.parametrize("gone", ["down/01.jpg", "down/02.jpg"])
def test_a_test_image_that_is_gone_is_named(tmp_path, gone):
    write_photographs(tmp_path, each=5)

    def open_folder():
        return open_source("folder", str(tmp_path), "first", None, None)

    index = [
        {"path": item.path, "id": item.load()[0]}
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
    """Its Interpolate is compiled anew for each."""
    import openvino

    path = exported.folder / "models/export/openvino/classifier.xml"
    operations = openvino.Core().read_model(path).get_ops()
    kinds = {operation.get_type_name() for operation in operations}
    assert "Convolution" in kinds and "Interpolate" not in kinds


def test_the_page_runs_onnx_as_predict_does(exported, tmp_path):
    """On a photograph that a telephone held upright has on its side."""
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
