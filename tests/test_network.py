"""Backbones, plans, the frozen part, training, saving: in this process."""

import hashlib
import json
import math
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from thaw.data.activations import ActivationWriter, Features
from thaw.data.blocks import Order
from thaw.data.dataset import Dataset
from thaw.data.views import augment_images, gather_views
from thaw.errors import InputError
from thaw.files.text import write_json
from thaw.frozen.network import freeze_model
from thaw.frozen.passes import FrozenPass
from thaw.network.backbone import build_backbone, measure_drift
from thaw.network.backend import keras, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import build_head, join_head, standardize_head
from thaw.network.model_file import load_model, save_model
from thaw.network.parts import get_part
from thaw.network.plan import (
    CACHED,
    POOLED_FEATURES,
    STREAMED,
    TAP,
    apply_plan,
    find_tap,
    list_blocks,
    make_plan,
)
from thaw.run.checkpoints import Checkpoint
from thaw.run.efficientnet import IMAGE, LOGITS, POOLED, VARIANTS
from thaw.train.advice import advise
from thaw.train.batches import Batches, feed
from thaw.train.callbacks import Validation
from thaw.train.choice import is_better
from thaw.train.inputs import open_inputs
from thaw.train.loop import train_model
from thaw.train.recipe import Recipe

RNG = np.random.default_rng(0)


def predict(network, inputs):
    """All outputs of a `FrozenNetwork` for any number of inputs."""
    outs = [np.empty((len(inputs), *s), np.float32) for s in network.outputs]
    network.run(lambda start, stop: inputs[start:stop], len(inputs), outs)
    return outs


def as_list(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


IMAGES = RNG.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(24) % 3


@pytest.fixture(scope="module")
def checkpoint():
    (weights,) = (ROOT / "weights").glob("*.weights.h5")
    return build_backbone("EfficientNetB0", "file", weights, 32)


@pytest.fixture
def b0(checkpoint):
    """The embedded checkpoint, whatever an earlier test made of it."""
    weights = checkpoint.get_weights()
    yield checkpoint
    checkpoint.set_weights(weights)


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
    weights_files, tmp_path, monkeypatch
):
    from keras.src.applications import efficientnet
    from keras.src.utils import file_utils

    published = weights_files / "efficientnetb0_notop.h5"
    digest = hashlib.md5(published.read_bytes()).hexdigest()
    monkeypatch.setitem(efficientnet.WEIGHTS_HASHES, "b0", ("", digest))
    # Where Keras keeps what it has downloaded.
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / published.name).write_bytes(published.read_bytes())
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))

    def predict(weights, file):
        model = build_backbone("EfficientNetB0", weights, file, 32)
        return model.predict(IMAGES, verbose=0)

    expected = predict("imagenet", "")
    assert np.array_equal(predict("file", published), expected)
    new = weights_files / "new.weights.h5"
    assert np.array_equal(predict("file", new), expected)


def test_random_weights_are_the_same_in_every_stage():
    first, second = (
        build_backbone("EfficientNetB0", None, "", 32).get_weights()
        for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)


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
    network = freeze_model(get_part(b0, IMAGE, tap, POOLED), precision, "uint8")
    assert network.precision == precision
    assert network.engine.startswith("openvino")
    expected = get_part(b0, IMAGE, tap, POOLED).predict(IMAGES, verbose=0)
    limit = {"float32": 2e-3, "bfloat16": 0.03}[precision]
    # 13 images: a whole batch of 8, and a part of one.
    for got, want in zip(predict(network, IMAGES[:13]), expected, strict=True):
        want = want[:13]
        assert got.shape == want.shape
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert error < limit


def test_the_frozen_network_repeats_itself_whatever_the_batches(b0):
    network = freeze_model(get_part(b0, IMAGE, POOLED), "auto", "uint8")
    (whole,) = predict(network, IMAGES)
    (part,) = predict(network, IMAGES[5:9])
    assert np.array_equal(whole[5:9], part)


def test_two_threads_may_run_the_frozen_network_at_once(b0):
    network = freeze_model(get_part(b0, IMAGE, POOLED), "float32", "uint8")
    sets = [np.roll(np.repeat(IMAGES, 4, axis=0), i, axis=0) for i in range(4)]
    expected = [predict(network, images)[0] for images in sets]
    with ThreadPoolExecutor(4) as pool:
        for (got,), want in zip(
            pool.map(partial(predict, network), sets), expected, strict=True
        ):
            assert np.array_equal(got, want)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kept_activations_give_the_logits_of_the_images(b0, precision):
    model = join_head(b0, build_head(1280, 3, dropout=0.2))
    whole = keras.Model(b0.input, model.get_layer(LOGITS).output)
    expected = whole.predict(IMAGES, verbose=0)
    limit = {"float32": 2e-3, "bfloat16": 0.03}[precision]
    tap = find_tap(b0)
    cuts = [make_plan(b0, n, tap_kept=True).cut for n in range(9)]
    from_tap, from_image = cuts[1:4], cuts[4:]
    assert from_image[0] == tap
    kept = run_part(b0, IMAGE, [cuts[0], *from_image], IMAGES, precision)
    kept |= run_part(b0, tap, from_tap, kept[tap], precision)
    assert len(kept) == 9
    for cut, activations in kept.items():
        suffix = get_part(model, cut, LOGITS)
        (logits,) = as_list(suffix.predict(activations, verbose=0))
        error = np.linalg.norm(logits - expected) / np.linalg.norm(expected)
        assert error < limit, cut


def run_part(model, start, ends, inputs, precision):
    """What is kept of some layers: float16, but for pooled features."""
    part = get_part(model, start, *ends)
    network = freeze_model(part, precision, str(inputs.dtype))
    outputs = dict(zip(ends, predict(network, inputs), strict=True))
    return {
        name: x if name == POOLED else x.astype(np.float16)
        for name, x in outputs.items()
    }


def test_keras_stands_in_where_openvino_is_missing(b0, monkeypatch):
    monkeypatch.setattr("thaw.frozen.network.can_use_openvino", lambda: False)
    part = get_part(b0, IMAGE, find_tap(b0), POOLED)
    network = freeze_model(part, "auto", "uint8")
    assert network.engine.startswith("keras")
    assert network.precision == "float32"
    for got, want in zip(
        predict(network, IMAGES), part.predict(IMAGES, verbose=0), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_keras_is_imported_without_what_nobody_uses():
    code = (
        "import sys, thaw.network.backend, thaw.train.loop; "
        "assert not {'matplotlib', 'sklearn'} & set(sys.modules); "
        "import matplotlib, sklearn"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_openvino_telemetry_is_never_imported(b0):
    freeze_model(get_part(b0, IMAGE, POOLED), "auto", "uint8")
    assert sys.modules["openvino_telemetry"] is None


def test_activations_beyond_float16_are_noticed(tmp_path):
    paths = [tmp_path / "a.npy"]
    half = ActivationWriter(paths, Order(2, 1, 8), (1,), "float16", new=True)
    half[0:1] = np.array([[65000.0]])
    assert not half.overflowed
    half[1:2] = np.array([[70000.0]])
    assert half.overflowed


@pytest.fixture
def write(b0, tmp_path):
    """Writes the pooled features of 24 images in two views."""
    network = freeze_model(get_part(b0, IMAGE, POOLED), "auto", "uint8")

    def write(scale=1.0, dtype="float16"):
        run = network._engine.run

        def scaled(batches, store, *rest):
            run(batches, lambda s, r: store(s, [x * scale for x in r]), *rest)

        network._engine.run = scaled
        FrozenPass(
            network,
            {POOLED: dtype},
            views=2,
            rows=dict.fromkeys(("train", "validation", "test"), 24),
            gather=dict.fromkeys(
                ("train", "validation", "test"),
                lambda rows, views: augment_images(
                    IMAGES, rows, views, **AUGMENT
                ),
            ),
            label="writing",
        ).write(Checkpoint(tmp_path))
        return {p.stem: np.load(p) for p in (tmp_path / POOLED).iterdir()}

    return write


def test_every_view_is_written_once(write, b0, capsys):
    written = write()
    assert sorted(written) == ["test-0", "train-0", "train-1", "validation-0"]
    expected = b0.predict(IMAGES, verbose=0)
    for name, limit in {"train-0": 0.03, "test-0": 2e-3}.items():
        error = np.linalg.norm(written[name] - expected)
        assert error / np.linalg.norm(expected) < limit, name
    assert not np.array_equal(written["train-1"], written["train-0"])
    assert "96 images" in capsys.readouterr().out


def test_a_range_beyond_float16_is_kept_in_float32(write, capsys):
    written = write(scale=1e6)
    assert {array.dtype for array in written.values()} == {np.dtype("float32")}
    assert all(np.isfinite(array).all() for array in written.values())
    assert "float32" in capsys.readouterr().out


def test_values_that_are_not_finite_are_refused(write):
    with pytest.raises(InputError, match="not finite"):
        write(scale=np.nan)


def test_a_full_disk_is_foreseen(write, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="are free"):
        write()


@pytest.mark.parametrize("blocks", [1, 4, 5, 8])
def test_streamed_inputs_are_those_that_are_kept(b0, dataset, tmp_path, blocks):
    tap = find_tap(b0)
    plan = make_plan(b0, blocks, tap_kept=True)
    rows = dict.fromkeys(("train", "validation"), 24)
    images = {s: gather_views(dataset, s, AUGMENT) for s in rows}
    layers = {plan.cut: "float16", POOLED: "float32"}
    network = freeze_model(get_part(b0, IMAGE, *layers), "float32", "uint8")
    kept_pass = FrozenPass(network, layers, rows, 2, images, "writing")
    kept_pass.write(Checkpoint(tmp_path))
    write_json(
        tmp_path / "extract.json",
        {
            "classes": ["a", "b", "c"],
            "views": 2,
            "tap": tap,
            "precision": "float32",
            "engine": network.engine,
        },
    )
    rest = (b0, dataset, Features(tmp_path), tmp_path, 2, AUGMENT)
    kept = open_inputs(plan, *rest)
    streamed = open_inputs(replace(plan, activations=STREAMED), *rest)
    which, views = np.array([3, 0, 21, 3]), np.array([1, 0, 1, 0])
    for split, view in {"train": views, "validation": views * 0}.items():
        a, b = (
            inputs[split](which, view).astype("float32")
            for inputs in (kept, streamed)
        )
        assert a.shape == (4, *plan.cut_shape)
        assert np.linalg.norm(a - b) < 2e-3 * np.linalg.norm(b)
    assert not np.allclose(
        streamed["train"](which, views), streamed["train"](which, views * 0)
    )


@pytest.fixture
def dataset(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / "prepared" / split).mkdir(parents=True)
        np.save(tmp_path / "prepared" / split / "images.npy", IMAGES)
    write_json(tmp_path / "prepared" / "classes.json", ["a", "b", "c"])
    return Dataset(tmp_path / "prepared")


def test_everything_thawed_is_fed_with_the_images(b0, dataset):
    plan = make_plan(b0, "all", tap_kept=True)
    inputs = open_inputs(plan, b0, dataset, None, "", 2, AUGMENT)
    views = np.arange(24) % 2
    assert np.array_equal(
        inputs["train"](ROWS, views),
        augment_images(IMAGES, ROWS, views, **AUGMENT),
    )


AUGMENT = {
    "seed": 0,
    "rotation": 0.1,
    "translation": 0.1,
    "horizontal_flip": True,
    "contrast": 0.2,
}


ROWS = np.arange(24)
STILL = dict.fromkeys(AUGMENT, 0) | {"horizontal_flip": False}


def make_view(view, images=IMAGES, rows=ROWS, **options):
    views = np.full(len(rows), view)
    return augment_images(images, rows, views, **options)


def test_view_0_is_the_image_and_views_repeat_themselves():
    assert np.array_equal(make_view(0, **AUGMENT), IMAGES)
    first = make_view(1, **AUGMENT)
    assert np.array_equal(first, make_view(1, **AUGMENT))
    part = make_view(1, IMAGES, ROWS[7:9], **AUGMENT)
    assert np.array_equal(first[7:9], part)
    assert not np.array_equal(first, make_view(2, **AUGMENT))
    assert not np.array_equal(first, make_view(1, **{**AUGMENT, "seed": 1}))
    mixed = augment_images(IMAGES, ROWS, ROWS % 2, **AUGMENT)
    assert np.array_equal(mixed[1::2], first[1::2])
    assert np.array_equal(mixed[::2], IMAGES[::2])


def test_no_augmentation_changes_nothing():
    assert np.array_equal(make_view(3, **STILL), IMAGES)


def test_mirroring_takes_half_of_the_images():
    view = make_view(1, **{**STILL, "horizontal_flip": True})
    mirrored = [
        np.array_equal(a[:, ::-1], b) for a, b in zip(view, IMAGES, strict=True)
    ]
    same = [np.array_equal(a, b) for a, b in zip(view, IMAGES, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 4 < sum(mirrored) < 20


def test_contrast_keeps_the_mean_and_stays_in_its_range():
    grey = (IMAGES // 4 + 96).astype(np.uint8)  # far from clipping
    view = make_view(1, grey, **{**STILL, "contrast": 0.5}).astype(float)
    np.testing.assert_allclose(
        view.mean(axis=(1, 2)), grey.mean(axis=(1, 2)), atol=0.5
    )
    factors = view.std(axis=(1, 2, 3)) / grey.std(axis=(1, 2, 3))
    assert 0.49 < factors.min() < 0.75 and 1.25 < factors.max() < 1.51


def find_dot(images):
    """Centre of mass of a bright dot, x and y from the middle."""
    weight = images[..., 0].astype(float)
    y, x = np.mgrid[: weight.shape[1], : weight.shape[2]]
    total = weight.sum(axis=(1, 2))
    middle = (weight.shape[1] - 1) / 2
    return np.stack(
        [(weight * x).sum((1, 2)) / total, (weight * y).sum((1, 2)) / total], 1
    ) - [middle, middle]


def draw_dots():
    dots = np.zeros((200, 65, 65, 3), np.uint8)
    dots[:, 31:34, 47:50] = 255  # 16 pixels right of the middle
    return dots


def test_rotation_is_a_share_of_a_turn_about_the_middle():
    dots = draw_dots()
    view = make_view(1, dots, np.arange(200), **{**STILL, "rotation": 0.25})
    x, y = find_dot(view).T
    np.testing.assert_allclose(np.hypot(x, y), 16, atol=0.5)
    degrees = np.rad2deg(np.arctan2(y, x))
    assert -90.5 < degrees.min() < -75 and 75 < degrees.max() < 90.5


def test_translation_is_a_share_of_the_side():
    dots = draw_dots()
    view = make_view(1, dots, np.arange(200), **{**STILL, "translation": 0.2})
    moved = find_dot(view) - [16, 0]
    for axis in (0, 1):
        assert -13.5 < moved[:, axis].min() < -11
        assert 11 < moved[:, axis].max() < 13.5


def test_an_epoch_sees_each_image_once_and_v_epochs_each_view():
    seen = []
    batches = Batches(
        lambda rows, views: np.stack([rows, views], axis=1),
        np.arange(10),
        views=3,
        batch_size=4,
        seed=5,
    )
    orders = []
    for epoch in range(3):
        drawn = [batches[3 * epoch + index] for index in range(3)]
        rows, labels = (
            np.concatenate(part) for part in zip(*drawn, strict=True)
        )
        assert np.array_equal(rows[:, 0], labels)
        assert sorted(labels) == list(range(10))
        orders.append(labels.tolist())
        seen += map(tuple, rows.astype(int).tolist())
    assert len(set(seen)) == 30
    assert orders[0] != orders[1]


def test_keras_is_fed_all_epochs_and_validates_in_one_pass():
    def make(seed):
        rows = np.arange(10)
        return Batches(lambda x, views: rows[x, None], rows, 1, 4, seed)

    train, validation = make(5), make(None)
    fed = feed(train).as_numpy_iterator()
    for step in range(7):
        for got, want in zip(next(fed), train[step], strict=True):
            assert np.array_equal(got, want)
    labels = [batch for _, batch in feed(validation).as_numpy_iterator()]
    assert [len(batch) for batch in labels] == [4, 4, 2]
    assert np.array_equal(np.concatenate(labels), np.arange(10))
    assert feed(train).options().autotune.enabled is False


def make_training(backbone, blocks):
    make_deterministic(1)
    plan = make_plan(backbone, blocks, tap_kept=True)
    apply_plan(backbone, plan, drop_connect_rate=0.2)
    model = join_head(backbone, build_head(1280, 3, dropout=0.2))
    below = get_part(model, IMAGE, plan.cut)
    (inputs,) = as_list(below.predict(IMAGES, verbose=0))

    def batches(seed):
        return Batches(lambda rows, views: inputs[rows], LABELS, 1, 8, seed)

    return plan, model, batches


def test_training_changes_exactly_the_planned_layers(b0, tmp_path):
    plan, model, batches = make_training(b0, 3)
    before = {w.path: w.numpy() for w in model.weights}
    checkpoint = b0.get_weights()
    training = train_model(
        get_part(model, plan.cut, LOGITS),
        batches(1),
        batches(None),
        Recipe("finetune", epochs=3, learning_rate=1e-3, warmup_epochs=1),
        new_checkpoint(tmp_path),
    )
    assert training.epochs == 3 and training.start is None
    changed = {
        w.path.split("/")[0]
        for w in model.weights
        if not np.array_equal(before[w.path], w.numpy())
    }
    assert changed == {*plan.layers, LOGITS}
    assert measure_drift(b0, checkpoint) == 0
    assert len(training.curves) == 3


@pytest.mark.parametrize("blocks", [1, 5, "all"])
def test_folding_leaves_the_function_and_its_variables(b0, blocks):
    plan, model, batches = make_training(b0, blocks)
    suffix = get_part(model, plan.cut, LOGITS)
    folded = fold_normalization(suffix)
    kinds = [type(layer).__name__ for layer in folded.layers]
    # What is left is the head's own, which has no convolution before it.
    assert kinds.count("BatchNormalization") == 1
    assert {w.path for w in folded.trainable_weights} == {
        w.path for w in suffix.trainable_weights
    }
    x, labels = batches(None)[0]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    suffix.compile(loss=loss)
    folded.compile(loss=loss)
    expected = suffix.evaluate(x, labels, verbose=0)
    got = folded.evaluate(x, labels, verbose=0)
    assert got == pytest.approx(expected, rel=1e-5)
    folded.get_layer(LOGITS).bias.assign([1.0, 2.0, 3.0])
    assert model.get_layer(LOGITS).bias.numpy().tolist() == [1, 2, 3]


def test_v2_is_folded_too():
    backbone = build_backbone("EfficientNetV2B0", None, "", 32)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [RNG.uniform(0.5, 1, w.shape) for w in layer.weights]
            )
            layer.trainable = False
    expected = backbone.predict(IMAGES[:4], verbose=0)
    got = fold_normalization(backbone).predict(IMAGES[:4], verbose=0)
    assert not np.allclose(expected, 0)
    assert np.linalg.norm(got - expected) < 1e-3 * np.linalg.norm(expected)


def test_only_frozen_normalization_is_folded(b0):
    b0.trainable = False
    b0.get_layer("top_bn").trainable = True
    with pytest.raises(ValueError, match="top_bn is not frozen"):
        fold_normalization(get_part(b0, find_tap(b0), POOLED))
    b0.get_layer("top_bn").trainable = False


@pytest.mark.parametrize("blocks", [1, 5])
def test_training_from_the_cache_and_streaming_agree(
    b0, dataset, tmp_path, blocks
):
    """One view, float32, dropout off: the same run but for float16."""
    plan = make_plan(b0, blocks, tap_kept=False)
    assert plan.activations == CACHED
    weights = b0.get_weights()
    predictions = {}
    still = STILL | {"seed": 0}
    for activations in (CACHED, STREAMED):
        b0.set_weights(weights)
        make_deterministic(1)
        apply_plan(b0, plan, drop_connect_rate=0.0)
        model = join_head(b0, build_head(1280, 3, dropout=0.0))
        if activations == CACHED:
            start = model.get_weights()
            keep_cut(b0, plan, dataset, tmp_path / "kept", still)
        model.set_weights(start)
        inputs = open_inputs(
            replace(plan, activations=activations),
            b0,
            dataset,
            Streaming,
            tmp_path / "kept",
            1,
            still,
        )
        train, validation = (
            Batches(inputs[split], LABELS, 1, 8, seed)
            for split, seed in {"train": 3, "validation": None}.items()
        )
        train_model(
            fold_normalization(get_part(model, plan.cut, LOGITS)),
            train,
            validation,
            Recipe("finetune", epochs=4, learning_rate=1e-3),
            new_checkpoint(tmp_path),
        )
        predictions[activations] = model.predict(IMAGES, verbose=0)
    cached, streamed = predictions.values()
    assert not np.array_equal(cached, streamed)
    assert np.array_equal(cached.argmax(1), streamed.argmax(1))
    np.testing.assert_allclose(cached, streamed, atol=0.02)


def new_checkpoint(folder):
    return Checkpoint(Path(tempfile.mkdtemp(dir=folder)))


class Streaming:
    """What of data/features streaming looks at."""

    wanted_precision = "float32"


def keep_cut(backbone, plan, dataset, folder, augment):
    splits = ("train", "validation")
    FrozenPass(
        freeze_model(get_part(backbone, IMAGE, plan.cut), "float32", "uint8"),
        {plan.cut: "float16"},
        views=1,
        rows=dict.fromkeys(splits, 24),
        gather={s: gather_views(dataset, s, augment) for s in splits},
        label="writing",
    ).write(Checkpoint(folder))


def test_drift_is_measured(b0):
    checkpoint = b0.get_weights()
    layer = b0.get_layer("block6a_bn")
    mean = layer.moving_mean.numpy()
    layer.moving_mean.assign(mean + 0.5)
    assert measure_drift(b0, checkpoint) == pytest.approx(0.5)
    layer.moving_mean.assign(mean)


def score(accuracy, calibrated_loss, **others):
    return {"accuracy": accuracy, "calibrated_loss": calibrated_loss, **others}


def test_fine_tuning_is_judged_by_accuracy_and_then_by_loss():
    start = score(0.9, 0.5)
    assert is_better(score(0.91, 0.6), start)
    assert is_better(score(0.9, 0.4), start)
    assert not is_better(score(0.89, 0.1), start)
    assert not is_better(start, start)


def train_from(suffix, batches, folder, **options):
    return train_model(
        suffix,
        batches(1),
        batches(None),
        Recipe("finetune", from_trained=True, **options),
        new_checkpoint(folder),
    )


def test_a_start_beyond_guessing_may_still_be_mended(b0, tmp_path):
    plan, model, batches = make_training(b0, 1)
    suffix = get_part(model, plan.cut, LOGITS)
    model.get_layer(LOGITS).bias.assign([400.0, 0.0, 0.0])
    training = train_from(
        suffix, batches, tmp_path, epochs=6, learning_rate=0.3
    )
    assert training.start["calibrated_loss"] > math.log(3)
    assert len(training.curves) == 6


def test_a_run_without_any_finite_loss_is_refused(b0, tmp_path):
    _, model, batches = make_training(b0, 0)
    with pytest.raises(InputError, match=r"diverged.*head.learning_rate=1e\+3"):
        train_model(
            get_part(model, POOLED, LOGITS),
            batches(1),
            batches(None),
            Recipe("head", epochs=2, learning_rate=1e38),
            new_checkpoint(tmp_path),
        )


def test_a_lost_run_stops_and_leaves_the_start(b0, tmp_path):
    plan, model, batches = make_training(b0, 1)
    suffix = get_part(model, plan.cut, LOGITS)
    before = suffix.get_weights()
    training = train_from(
        suffix, batches, tmp_path, epochs=5, learning_rate=10.0
    )
    assert training.epochs == 0 and training.scores == training.start
    assert "finetune.learning_rate=1" in training.advice
    assert len(training.curves) == 1
    for a, b in zip(before, suffix.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_the_last_epoch_is_kept_or_the_start(b0, tmp_path, monkeypatch):
    """Whatever an epoch in between had."""
    accuracies = iter([0.5, 0.9, 0.6, 0.5, 0.9, 0.4])

    def measure(self):
        return score(next(accuracies), 0.5, loss=0.5, temperature=1.0)

    monkeypatch.setattr(Validation, "measure", measure)
    for epochs in (2, 0):
        plan, model, batches = make_training(b0, 1)
        suffix = get_part(model, plan.cut, LOGITS)
        before = suffix.get_weights()
        training = train_from(
            suffix, batches, tmp_path, epochs=2, learning_rate=1e-3
        )
        assert training.epochs == epochs
        same = [
            np.array_equal(a, b)
            for a, b in zip(before, suffix.get_weights(), strict=True)
        ]
        assert all(same) == (epochs == 0)


@pytest.mark.parametrize(
    ("losses", "lost", "wanted"),
    [
        ([1.0, 0.5, 0.31, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3], False, None),
        ([2.0], True, "finetune.learning_rate=0.0002"),
        ([math.nan], False, "finetune.learning_rate=0.0002"),
        ([1.0986, 1.09, 1.08, 1.08], False, "finetune.learning_rate=0.02"),
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], False, "finetune.epochs=12"),
    ],
)
def test_curves_ask_for_what_they_lack(losses, lost, wanted):
    curves = [{"val_calibrated_loss": x, "val_loss": x} for x in losses]
    advice = advise(curves, lost, math.log(3), Recipe("finetune", 6, 0.002))
    assert advice is None if wanted is None else wanted in advice


def test_a_head_starts_from_the_features_as_they_are():
    """Of 5 steps, from Keras's start, BatchNormalization knows nothing."""
    features = RNG.normal(3, 0.1, (2, 30, 8)).astype(np.float32)
    head = build_head(8, 3, dropout=0.0)
    standardize_head(head, features)
    layer = head.get_layer("head_bn")
    normalized = layer(features.reshape(-1, 8)).numpy()
    everything = features.reshape(-1, 8)
    expected = everything - everything.mean(axis=0)
    expected /= np.sqrt(everything.var(axis=0) + layer.epsilon)
    np.testing.assert_allclose(normalized, expected, atol=1e-3)


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
            load_model(tmp_path / name, (4,), 4)
        assert "\n" not in str(refusal.value)


def test_model_files_hold_no_times_or_addresses(tmp_path):
    save_model(build_head(8, 3, dropout=0.1), tmp_path / "head.keras")
    with zipfile.ZipFile(tmp_path / "head.keras") as archive:
        config = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
    assert "shared_object_id" not in json.dumps(config)
    assert "date_saved" not in metadata and "keras_version" in metadata
