"""Backbones, plans, folding, heads and model files."""

import hashlib
import json
import math
import platform
import zipfile

import numpy as np
import pytest
from conftest import slow
from networks import as_list, make_training
from programs import run_python
from samples import IMAGES

from thaw.data.efficientnet import IMAGE, LAST, LOGITS, POOLED, VARIANTS
from thaw.errors import InputError
from thaw.evaluate.scores import (
    measure_calibration,
)
from thaw.linear.ridge import fit_ridge
from thaw.linear.temperature import calibrate, fit_temperature
from thaw.network.backbone import build_backbone, measure_drift
from thaw.network.backend import keras, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import (
    build_head,
    join_head,
    read_affine,
    set_head,
)
from thaw.network.model_file import load_model, save_model
from thaw.network.parts import get_part, get_suffix
from thaw.network.plan import CACHED, POOLED_FEATURES, STREAMED, TAP
from thaw.network.pooling import FRONT, TOP, pool_blocks
from thaw.network.thawing import (
    apply_plan,
    describe_backbone,
    find_output,
    find_tap,
    list_blocks,
    make_plan,
)

RNG = np.random.default_rng(0)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_division_is_there_exactly_with_a_variance(weights_files, b0):
    def count(model):
        return sum(isinstance(x, keras.layers.Rescaling) for x in model.layers)

    new = weights_files / "new.weights.h5"
    assert count(build_backbone("EfficientNetB0", "file", new, 32)) == 2
    assert count(b0) == 1


@pytest.mark.slow
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


# The families; what else there is has more blocks of the same kinds.
FAMILIES = ("EfficientNetB0", "EfficientNetV2B0")


@pytest.mark.parametrize(
    "name",
    [*FAMILIES, *slow(*(name for name in VARIANTS if name not in FAMILIES))],
)
def test_every_variant_thaws_whole_blocks_and_no_batchnorm(name):
    backbone = build_backbone(name, None, "", 32)
    blocks = list_blocks(backbone)
    assert len(blocks) == VARIANTS[name].blocks
    assert find_tap(backbone).startswith("block6a_")
    half = len(blocks) // 2
    every = (0, 1, half, len(blocks), "all")
    for count in every if name in FAMILIES else (half,):
        check_plan(backbone, blocks, count)


def check_plan(backbone, blocks, count):
    """Asserts that what a plan thaws is trainable, and nothing else."""
    plan = make_plan(backbone, count, tap_kept=True)
    apply_plan(backbone, plan, drop_connect_rate=0.2)
    number = len(blocks) if count == "all" else count
    assert plan.blocks == blocks[len(blocks) - number :]
    for layer in backbone.layers:
        block = layer.name.split("_")[0]
        if isinstance(layer, keras.layers.Dropout):
            assert (layer.rate == 0) == (block not in plan.blocks)
        if not layer.weights:
            continue
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


@pytest.mark.parametrize(
    ("blocks", "cut", "activations"),
    [
        (0, POOLED, POOLED_FEATURES),
        (1, "block6d_add", CACHED),
        (4, "block6a_project_bn", TAP),
        *slow(
            (8, "block4c_add", CACHED),
            (12, "block3a_project_bn", CACHED),
            (13, "block2b_add", STREAMED),
            (16, "stem_activation", STREAMED),
        ),
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
    (above,) = as_list(get_part(b0, cut, LAST).predict(below, verbose=0))
    np.testing.assert_allclose(above, whole, rtol=1e-4, atol=1e-4)


def test_without_a_tap_its_depth_is_cached(b0):
    assert make_plan(b0, 4, tap_kept=False).activations == CACHED


@pytest.mark.slow
def test_keras_imports_neither_matplotlib_nor_sklearn():
    code = (
        "import sys, thaw.network.backend, thaw.train.loop; "
        "assert not {'matplotlib', 'sklearn'} & set(sys.modules); "
        "import matplotlib, sklearn"
    )
    run_python(code)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86 alone")
@pytest.mark.parametrize("asked", [None, "0"])
def test_tensorflow_computes_with_onednn_unless_told_not_to(monkeypatch, asked):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if asked:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", asked)
    run_python(
        "import thaw.network.backend; "
        "from tensorflow.python.util import _pywrap_util_port as port; "
        f"assert port.IsMklEnabled() is {asked is None}"
    )


@pytest.mark.parametrize("blocks", [1, *slow(5, "all")])
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


@pytest.mark.slow
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
        fold_normalization(get_part(b0, find_tap(b0), LAST))
    b0.get_layer("top_bn").trainable = False


def test_drift_is_measured(b0):
    checkpoint = b0.get_weights()
    layer = b0.get_layer("block6a_bn")
    mean = layer.moving_mean.numpy()
    layer.moving_mean.assign(mean + 0.5)
    assert measure_drift(b0, checkpoint) == pytest.approx(0.5)
    layer.moving_mean.assign(mean)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_a_head_has_the_weights_of_a_ridge_regression(epsilon):
    features, labels = make_classes(60, spread=1)
    features[:, 3] = 7.0  # a column that never varies
    ridge = fit_ridge(
        [features], slice(0, 8), [4, 4], labels, np.arange(60), classes=3
    )
    head = build_head(8, 3, 0.0, epsilon)
    variance = features.var(axis=0) if epsilon else None
    set_head(head, ridge, variance)
    assert all(np.isfinite(w).all() for w in head.get_weights())
    logits = get_part(head, POOLED, LOGITS).predict(features, verbose=0)
    expected = ridge.score(features, slice(0, 8))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    again = read_affine(head).score(features)
    np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-4)


def make_classes(images, spread):
    """Features (n, 8) of three classes, and their labels."""
    labels = np.arange(images) % 3
    rng = np.random.default_rng(4)
    means = spread * rng.normal(size=(3, 8))
    features = means[labels] + rng.normal(size=(images, 8))
    return features.astype(np.float32), labels


@pytest.mark.parametrize(
    "cut", [None, "block4a_project_bn", "block7a_project_bn"]
)
def test_pooled_outputs_are_means_and_deviations_of_blocks(b0, cut):
    ends = [find_output(b0, block) for block in list_blocks(b0)]
    model = keras.Model(b0.input, pool_blocks(b0, cut))
    images = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8)
    pooled = model.predict(images, verbose=0)
    outputs = get_part(b0, IMAGE, *ends, TOP).predict(images, verbose=0)
    expected = [
        part
        for x in outputs
        for part in (x.mean((1, 2)), np.sqrt(x.var((1, 2)) + 1e-6))
    ]
    np.testing.assert_allclose(
        pooled, np.concatenate(expected, axis=1), rtol=1e-3, atol=1e-4
    )
    architecture = describe_backbone(b0)
    assert architecture.widths == [part.shape[1] for part in expected]
    last = b0.predict(images, verbose=0)
    np.testing.assert_allclose(pooled[:, architecture.last], last, rtol=1e-4)
    if cut:
        front = get_part(model, IMAGE, FRONT).predict(images, verbose=0)
        assert front.shape[1] == architecture.count_pooled(cut)
        np.testing.assert_allclose(pooled[:, : front.shape[1]], front)


def test_pooled_outputs_have_a_slope_where_nothing_varies(b0):
    """The last activations of small images have one position."""
    tensorflow = pytest.importorskip("tensorflow")
    x = tensorflow.zeros((1, 32, 32, 3))
    model = keras.Model(b0.input, pool_blocks(b0))
    with tensorflow.GradientTape() as tape:
        tape.watch(x)
        total = tensorflow.reduce_sum(model(x, training=False))
    assert np.isfinite(tape.gradient(total, x).numpy()).all()


def test_a_wide_head_joined_in_front_of_a_cut_is_the_same_model(b0):
    plan = make_plan(b0, 3, tap_kept=True)
    size = sum(describe_backbone(b0).widths)
    head = build_head(size, 3, 0.0)
    model = join_head(b0, head, plan.cut)
    images = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = get_part(model, IMAGE, LOGITS).predict(images, verbose=0)
    kept = get_part(model, IMAGE, plan.cut, FRONT).predict(images, verbose=0)
    assert kept[1].shape == (3, plan.pooled)
    suffix = get_suffix(model, plan.cut)
    for part in (suffix, fold_normalization(suffix)):
        found = part.predict(kept, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_same_wide_model_has_the_same_bytes(b0, tmp_path):
    size = sum(describe_backbone(b0).widths)
    head = build_head(size, 3, 0.0)
    one, two = (tmp_path / f"{x}.keras" for x in ("one", "two"))
    for path in (one, two):
        save_model(join_head(b0, head, find_tap(b0)), path)
    assert one.read_bytes() == two.read_bytes()
    model = load_model(one, (32, 32, 3), 3)
    images = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = join_head(b0, head).predict(images, verbose=0)
    np.testing.assert_allclose(
        model.predict(images, verbose=0), expected, rtol=1e-3, atol=1e-5
    )


@pytest.mark.slow
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
    run_python(program, cwd=tmp_path)


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


def test_temperature_scaling_undoes_too_much_confidence():
    logits = RNG.normal(size=(4000, 5))
    labels = (logits + RNG.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.1)
    proud = np.exp(3 * logits) / np.exp(3 * logits).sum(axis=1, keepdims=True)
    modest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibrate(proud, 3.0), modest, rtol=1e-4)
    assert measure_calibration(modest, labels) < 0.03
    assert measure_calibration(proud, labels) > 0.2


def test_without_an_error_the_temperature_is_1():
    logits = 5 * np.eye(3)
    assert fit_temperature(logits, np.arange(3)) == 1


def test_certain_predictions_stay_finite():
    certain = np.array([[1, 0, 0]], np.float32)
    assert np.isfinite(calibrate(certain, 0.2)).all()


def write_climbing(path):
    """Adds an asset that would be unpacked outside its folder."""
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
def test_a_strange_head_is_refused(b0, tmp_path, write, words):
    path = tmp_path / "head.keras"
    save_model(build_head(1280, 3, 0.2), path)
    write(path)
    with pytest.raises(InputError) as refusal:
        join_head(b0, load_model(path, (1280,), 3))
    assert words in str(refusal.value) and "\n" not in str(refusal.value)
