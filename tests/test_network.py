"""Backbones, plans, the frozen part, training, saving: in this process."""

import hashlib
import json
import math
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT

from thaw.activations import HalfArray
from thaw.augmentation import augment_images
from thaw.backbone import build_backbone, measure_drift
from thaw.backend import keras, make_deterministic
from thaw.batches import Batches
from thaw.errors import InputError
from thaw.files import create_array
from thaw.frozen import FrozenNetwork
from thaw.metrics import measure_calibration, score_predictions
from thaw.models import build_head, join_head, load_model, save_model
from thaw.parts import IMAGE, LOGITS, POOLED, get_part
from thaw.plan import (
    CACHED,
    POOLED_FEATURES,
    STREAMED,
    TAP,
    apply_plan,
    find_tap,
    list_blocks,
    make_plan,
)
from thaw.training import train_model
from thaw.variants import VARIANTS

RNG = np.random.default_rng(0)


def as_list(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


IMAGES = RNG.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(24) % 3


@pytest.fixture(scope="module")
def b0():
    """With the embedded checkpoint."""
    (weights,) = (ROOT / "weights").glob("*.weights.h5")
    return build_backbone("EfficientNetB0", "file", weights, 32)


@pytest.fixture(scope="module")
def weights_files(tmp_path_factory):
    """EfficientNetB0 with ImageNet's normalisation, in Keras's two formats."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    folder = tmp_path_factory.mktemp("weights")
    model = keras.applications.EfficientNetB0(weights=None, include_top=False)
    normalization = next(
        x for x in model.layers if isinstance(x, keras.layers.Normalization)
    )
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalization.set_weights([mean, std**2, np.array(0)])
    model.save_weights(folder / "new.weights.h5")
    with h5py.File(folder / "efficientnetb0_notop.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return folder


def test_a_file_predicts_bit_for_bit_what_imagenet_does(
    weights_files, monkeypatch
):
    from keras.src.applications import efficientnet
    from keras.src.utils import file_utils

    published = weights_files / "efficientnetb0_notop.h5"
    digest = hashlib.md5(published.read_bytes()).hexdigest()
    monkeypatch.setitem(efficientnet.WEIGHTS_HASHES, "b0", ("", digest))
    monkeypatch.setattr(
        file_utils, "urlretrieve", lambda *args: pytest.fail("downloads")
    )
    monkeypatch.setattr(
        efficientnet.file_utils,
        "get_file",
        lambda name, *args, **kwargs: str(weights_files / name),
    )

    def predict(weights, file):
        model = build_backbone("EfficientNetB0", weights, file, 32)
        return model.predict(IMAGES, verbose=0)

    expected = predict("imagenet", "")
    assert np.array_equal(predict("file", published), expected)
    new = weights_files / "new.weights.h5"
    assert np.array_equal(predict("file", new), expected)


def test_the_division_is_there_exactly_with_a_variance(weights_files, b0):
    def count(model):
        return sum(isinstance(x, keras.layers.Rescaling) for x in model.layers)

    new = weights_files / "new.weights.h5"
    assert count(build_backbone("EfficientNetB0", "file", new, 32)) == 2
    assert count(b0) == 1


@pytest.mark.parametrize("name", ["EfficientNetB1", "EfficientNetV2B0"])
@pytest.mark.parametrize("file", ["new.weights.h5", "efficientnetb0_notop.h5"])
def test_weights_of_another_variant_are_refused(weights_files, name, file):
    with pytest.raises(InputError, match="holds no weights") as refusal:
        build_backbone(name, "file", weights_files / file, 32)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", [b"", b"no weights"])
def test_broken_weights_are_refused(tmp_path, text):
    file = tmp_path / "x.weights.h5"
    file.write_bytes(text)
    with pytest.raises(InputError, match="holds no weights"):
        build_backbone("EfficientNetB0", "file", file, 32)


def test_weights_that_mention_no_layer_are_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file.create_group("elsewhere")
    with pytest.raises(InputError, match="holds no weights"):
        build_backbone("EfficientNetB0", "file", tmp_path / "x.weights.h5", 32)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_thaws_whole_blocks_and_no_batchnorm(name):
    backbone = build_backbone(name, None, "", 32)
    blocks = list_blocks(backbone)
    assert len(blocks) == VARIANTS[name].blocks
    assert find_tap(backbone).startswith("block6a_")
    for count in (0, 1, len(blocks) // 2, len(blocks), "all"):
        plan = make_plan(backbone, count, tap_kept=True)
        apply_plan(backbone, plan, drop_connect_rate=0.2)
        number = len(blocks) if count == "all" else count
        assert plan.blocks == blocks[len(blocks) - number :]
        for layer in backbone.layers:
            if not layer.weights:
                continue
            block = layer.name.split("_")[0]
            on = (
                block in plan.blocks
                or (block == "top" and number > 0)
                or (count == "all" and block == "stem")
            )
            normalizes = isinstance(
                layer,
                (keras.layers.BatchNormalization, keras.layers.Normalization),
            )
            assert layer.trainable == (on and not normalizes), layer.name
        trainable = sum(math.prod(w.shape) for w in backbone.trainable_weights)
        assert trainable == plan.trainable_parameters
        for layer in backbone.layers:
            if isinstance(layer, keras.layers.Dropout):
                frozen = layer.name.split("_")[0] not in plan.blocks
                assert (layer.rate == 0) == frozen


@pytest.mark.parametrize(
    ("blocks", "cut", "activations"),
    [
        (0, POOLED, POOLED_FEATURES),
        (1, "block6d_add", CACHED),
        (4, "block6a_project_bn", TAP),
        (8, "block4c_add", CACHED),
        (9, "block4b_add", STREAMED),
        (16, "stem_activation", STREAMED),
        ("all", IMAGE, STREAMED),
    ],
)
def test_the_cut_parts_the_network_in_two(b0, blocks, cut, activations):
    plan = make_plan(b0, blocks, tap_kept=True)
    assert (plan.cut, plan.activations) == (cut, activations)
    if cut in (IMAGE, POOLED):
        return
    whole = b0.predict(IMAGES[:2], verbose=0)
    below = get_part(b0, IMAGE, cut).predict(IMAGES[:2], verbose=0)
    (above,) = as_list(get_part(b0, cut, POOLED).predict(below, verbose=0))
    np.testing.assert_allclose(above, whole, rtol=1e-4, atol=1e-4)


def test_without_a_tap_its_depth_is_cached(b0):
    assert make_plan(b0, 4, tap_kept=False).activations == CACHED


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_frozen_network_agrees_with_keras(b0, precision):
    tap = find_tap(b0)
    network = FrozenNetwork(
        get_part(b0, IMAGE, tap, POOLED), precision, "uint8"
    )
    assert network.precision == precision
    assert network.engine.startswith("openvino")
    expected = get_part(b0, IMAGE, tap, POOLED).predict(IMAGES, verbose=0)
    limit = {"float32": 2e-3, "bfloat16": 0.03}[precision]
    # 13 images: a whole batch of 8, and a part of one.
    for got, want in zip(network.predict(IMAGES[:13]), expected, strict=True):
        want = want[:13]
        assert got.shape == want.shape
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert error < limit


def test_the_frozen_network_repeats_itself_whatever_the_batches(b0):
    network = FrozenNetwork(get_part(b0, IMAGE, POOLED), "auto", "uint8")
    (whole,) = network.predict(IMAGES)
    (part,) = network.predict(IMAGES[5:9])
    assert np.array_equal(whole[5:9], part)


def test_keras_stands_in_where_openvino_is_missing(b0, monkeypatch):
    monkeypatch.setattr("thaw.frozen.can_use_openvino", lambda: False)
    part = get_part(b0, IMAGE, find_tap(b0), POOLED)
    network = FrozenNetwork(part, "auto", "uint8")
    assert network.engine.startswith("keras")
    assert network.precision == "float32"
    for got, want in zip(
        network.predict(IMAGES), part.predict(IMAGES, verbose=0), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_openvino_telemetry_is_never_imported(b0):
    FrozenNetwork(get_part(b0, IMAGE, POOLED), "auto", "uint8")
    assert sys.modules["openvino_telemetry"] is None


def test_activations_beyond_float16_are_noticed(tmp_path):
    half = HalfArray(create_array(tmp_path / "a.npy", (2, 1), "float16"))
    half[0:1] = np.array([[65000.0]])
    assert not half.overflowed
    half[1:2] = np.array([[70000.0]])
    assert half.overflowed


AUGMENT = {
    "seed": 0,
    "rotation": 0.1,
    "translation": 0.1,
    "horizontal_flip": True,
    "contrast": 0.2,
}


def test_view_0_is_the_image_and_views_repeat_themselves():
    rows = np.arange(24)
    assert np.array_equal(augment_images(IMAGES, rows, 0, **AUGMENT), IMAGES)
    first = augment_images(IMAGES, rows, 1, **AUGMENT)
    assert np.array_equal(first, augment_images(IMAGES, rows, 1, **AUGMENT))
    part = augment_images(IMAGES[7:9], rows[7:9], 1, **AUGMENT)
    assert np.array_equal(first[7:9], part)
    second = augment_images(IMAGES, rows, 2, **AUGMENT)
    other = augment_images(IMAGES, rows, 1, **{**AUGMENT, "seed": 1})
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_no_augmentation_changes_nothing():
    still = dict.fromkeys(AUGMENT, 0) | {"horizontal_flip": False}
    view = augment_images(IMAGES, np.arange(24), 3, **still)
    assert np.array_equal(view, IMAGES)


@pytest.mark.parametrize(
    ("change", "moment"),
    [
        ({"horizontal_flip": True}, lambda v: v[:, :, ::-1]),
        ({"contrast": 0.5}, lambda v: v.std(axis=(1, 2))),
        ({"translation": 0.3}, lambda v: v),
        ({"rotation": 0.3}, lambda v: v),
    ],
    ids=lambda x: str(x),
)
def test_each_augmentation_acts_alone(change, moment):
    still = dict.fromkeys(AUGMENT, 0) | {"horizontal_flip": False}
    view = augment_images(IMAGES, np.arange(24), 1, **{**still, **change})
    changed = [
        not np.array_equal(a, b) for a, b in zip(view, IMAGES, strict=True)
    ]
    assert any(changed)
    if "horizontal_flip" in change:
        mirrored = [
            np.array_equal(a[:, ::-1], b)
            for a, b in zip(view, IMAGES, strict=True)
        ]
        assert all(m or not c for m, c in zip(mirrored, changed, strict=True))
        assert 4 < sum(mirrored) < 20
    elif "contrast" in change:
        means = view.mean(axis=(1, 2)) - IMAGES.mean(axis=(1, 2))
        assert abs(means).max() < 12
        ratio = moment(view.astype(float)) / moment(IMAGES.astype(float))
        assert ratio.min() > 0.45 and ratio.max() < 1.55


def test_an_epoch_sees_each_image_once_and_v_epochs_each_view():
    seen = []
    batches = Batches(
        lambda rows, view: np.stack([rows, np.full(len(rows), view)], axis=1),
        np.arange(10),
        views=3,
        batch_size=4,
        seed=5,
    )
    orders = []
    for _ in range(3):
        rows = np.concatenate([batches[i][0] for i in range(len(batches))])
        labels = np.concatenate([batches[i][1] for i in range(len(batches))])
        assert np.array_equal(rows[:, 0], labels)
        assert sorted(labels) == list(range(10))
        orders.append(labels.tolist())
        seen += map(tuple, rows.astype(int).tolist())
        batches.on_epoch_end()
    assert len(set(seen)) == 30
    assert orders[0] != orders[1]


def make_training(backbone, blocks, learning_rate, **options):
    make_deterministic(1)
    plan = make_plan(backbone, blocks, tap_kept=True)
    apply_plan(backbone, plan, drop_connect_rate=0.2)
    model = join_head(backbone, build_head(1280, 3, dropout=0.2))
    below = get_part(model, IMAGE, plan.cut)
    (inputs,) = as_list(below.predict(IMAGES, verbose=0))

    def batches(seed):
        return Batches(lambda rows, view: inputs[rows], LABELS, 1, 8, seed)

    return plan, model, batches


def test_training_changes_exactly_the_planned_layers(b0, tmp_path):
    plan, model, batches = make_training(b0, 3, 0.01)
    before = {w.path: w.numpy() for w in model.weights}
    checkpoint = b0.get_weights()
    epoch, scores, start = train_model(
        get_part(model, plan.cut, LOGITS),
        batches(1),
        batches(None),
        tmp_path / "curves.csv",
        epochs=3,
        learning_rate=1e-3,
        warmup_epochs=1,
        from_trained=True,
    )
    assert epoch and scores["loss"] != start["loss"]
    changed = {
        w.path.split("/")[0]
        for w in model.weights
        if not np.array_equal(before[w.path], w.numpy())
    }
    assert changed == {*plan.layers, LOGITS}
    assert measure_drift(b0, checkpoint) == 0
    assert len((tmp_path / "curves.csv").read_text().splitlines()) == 4


def test_drift_is_measured(b0):
    checkpoint = b0.get_weights()
    layer = b0.get_layer("block6a_bn")
    mean = layer.moving_mean.numpy()
    layer.moving_mean.assign(mean + 0.5)
    assert measure_drift(b0, checkpoint) == pytest.approx(0.5)
    layer.moving_mean.assign(mean)


def test_a_lost_run_stops_and_leaves_the_start(b0, tmp_path, capsys):
    plan, model, batches = make_training(b0, 1, 0)
    suffix = get_part(model, plan.cut, LOGITS)
    before = suffix.get_weights()
    epoch, scores, start = train_model(
        suffix,
        batches(1),
        batches(None),
        tmp_path / "curves.csv",
        epochs=5,
        learning_rate=1e4,
        from_trained=True,
        highest_loss=math.log(3),
    )
    assert epoch is None and scores == start
    assert "passed that of guessing" in capsys.readouterr().out
    assert len((tmp_path / "curves.csv").read_text().splitlines()) == 2
    for a, b in zip(before, suffix.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_a_saved_model_has_the_same_bytes_and_predictions(tmp_path):
    def save(path):
        make_deterministic(3)
        backbone = build_backbone("EfficientNetB0", None, "", 32)
        model = join_head(backbone, build_head(1280, 3, dropout=0.2))
        save_model(model, path)
        return model

    model = save(tmp_path / "a.keras")
    save(tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (
        tmp_path / "b.keras"
    ).read_bytes()
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "expected.npy", model.predict(IMAGES, verbose=0))
    program = (
        "import keras, numpy; model = keras.models.load_model('a.keras'); "
        "assert numpy.array_equal(model.predict(numpy.load('images.npy'), "
        "verbose=0), numpy.load('expected.npy'))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_hostile_and_broken_models_are_refused(tmp_path):
    inputs = keras.Input((4,))
    outputs = keras.layers.Lambda(lambda x: x * 2)(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "lambda.keras")
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04 and no more")
    for name in ("lambda.keras", "broken.keras", "gone.keras"):
        with pytest.raises(InputError, match="can't be loaded") as refusal:
            load_model(tmp_path / name)
        assert "\n" not in str(refusal.value)


def test_model_files_hold_no_times_or_addresses(tmp_path):
    save_model(build_head(8, 3, dropout=0.1), tmp_path / "head.keras")
    with zipfile.ZipFile(tmp_path / "head.keras") as archive:
        config = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
    assert "shared_object_id" not in json.dumps(config)
    assert "date_saved" not in metadata and "keras_version" in metadata


def test_scores_are_those_of_a_hand_count():
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]
    )
    labels = np.array([0, 1, 1, 2])
    scores = score_predictions(probabilities, labels, top_k=2)
    assert scores["accuracy"] == 0.75 and scores["top2"] == 1
    expected = -np.log([0.7, 0.6, 0.3, 0.6]).mean()
    assert scores["loss"] == pytest.approx(expected)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    # Wilson's interval for 3 of 4.
    assert scores["accuracy_ci_low"] == pytest.approx(0.3006, abs=1e-4)
    assert scores["accuracy_ci_high"] == pytest.approx(0.9544, abs=1e-4)


def test_top_k_beyond_the_classes_counts_all():
    scores = score_predictions(np.full((4, 3), 1 / 3), np.arange(4) % 3, 5)
    assert scores["top5"] == 1


def test_calibration_error_is_confidence_minus_accuracy():
    sure = np.tile([0.9, 0.1], (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    assert measure_calibration(sure, labels) == pytest.approx(0.3)
    assert measure_calibration(np.tile([1.0, 0.0], (5, 1)), np.zeros(5)) == 0
