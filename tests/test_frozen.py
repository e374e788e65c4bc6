"""The frozen network and its passes over all images."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import openvino
import pytest
from conftest import slow
from networks import as_list
from samples import AUGMENT, DIGESTS, IMAGES

from thaw.data.activations import ActivationWriter
from thaw.data.blocks import Order
from thaw.data.efficientnet import IMAGE, LAST, LOGITS, POOLED
from thaw.data.views import augment_images
from thaw.errors import InputError
from thaw.files.arrays import create_array
from thaw.frozen.backbone import copy_backbone, keep_backbone, read_frozen
from thaw.frozen.engines import freeze_model, read_network, unpack_network
from thaw.frozen.keras import KerasEngine
from thaw.frozen.models import keep_models, read_heads, read_thawed
from thaw.frozen.network import FrozenNetwork
from thaw.frozen.openvino import has_fast_bfloat16
from thaw.frozen.passes import FrozenPass
from thaw.network.backend import keras
from thaw.network.head import build_head, join_head
from thaw.network.parts import get_part
from thaw.network.pooling import pool_blocks
from thaw.network.thawing import (
    describe_backbone,
    find_output,
    find_tap,
    list_blocks,
    make_plan,
)
from thaw.stage.checkpoints import Checkpoint
from thaw.stage.environment import get_processor

RNG = np.random.default_rng(0)


@pytest.fixture
def skips_without_bfloat16(request):
    """Of a test by precision: processors with AVX2 alone have float32 alone."""
    capabilities = openvino.Core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    )
    asked = request.getfixturevalue("precision")
    if asked == "bfloat16" and "BF16" not in capabilities:
        pytest.skip("this processor has no bfloat16")


def run_at(network, images, precision):
    outs = [np.empty((len(images), *shape)) for shape in network.outputs]
    network.run(
        lambda start, stop: images[start:stop],
        len(images),
        outs,
        precision=precision,
    )
    return outs


def test_keras_on_an_accelerator_runs_in_bfloat16():
    """The processor stands in for an accelerator: Keras compiles for it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3)(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    images = RNG.integers(0, 256, (5, 8, 8, 3), np.uint8)
    expected = model.predict(images, verbose=0)
    engine = KerasEngine(model, accelerated=True)
    network = FrozenNetwork(engine, {"pool": (16,)}, (8, 8, 3), "uint8", IMAGE)
    assert network.precisions == ["float32", "bfloat16"]
    (exact,) = run_at(network, images, "float32")
    np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-3)
    (rough,) = run_at(network, images, "bfloat16")
    error = np.linalg.norm(rough - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 2e-2
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    (sent,) = run_at(unpack_network(network.pack()), images, "float32")
    np.testing.assert_allclose(sent, expected, rtol=1e-4, atol=1e-3)


def predict(network, inputs):
    """All outputs of a `FrozenNetwork` for any number of inputs."""
    outs = [np.empty((len(inputs), *s), np.float32) for s in network.outputs]
    network.run(lambda start, stop: inputs[start:stop], len(inputs), outs)
    return outs


@pytest.mark.usefixtures("skips_without_bfloat16")
@pytest.mark.parametrize("precision", ["float32", *slow("bfloat16")])
def test_the_frozen_network_agrees_with_keras(b0, precision):
    tap = find_tap(b0)
    network = freeze_model(get_part(b0, IMAGE, tap, LAST), precision, "uint8")
    assert network.precision == precision
    assert network.engine.startswith("openvino")
    expected = get_part(b0, IMAGE, tap, LAST).predict(IMAGES, verbose=0)
    limit = {"float32": 2e-3, "bfloat16": 0.03}[precision]
    # 13 images: a whole batch of 8, and a part of one.
    for got, want in zip(predict(network, IMAGES[:13]), expected, strict=True):
        want = want[:13]
        assert got.shape == want.shape
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert error < limit


@pytest.mark.parametrize(
    ("maker", "flags", "fast"),
    [
        ("GenuineIntel", "avx512_bf16 amx_bf16", True),
        ("GenuineIntel", "avx512_bf16 avx512_fp16", False),
        ("AuthenticAMD", "avx512_bf16", True),
        ("AuthenticAMD", "avx512f", False),
    ],
)
def test_bfloat16_is_fast_with_amx_or_on_amd(
    maker, flags, fast, tmp_path, monkeypatch
):
    cpuinfo = tmp_path / "cpuinfo"
    one = (
        f"vendor_id\t: {maker}\nmodel name\t: One: a\nflags\t\t: fpu {flags}\n"
    )
    cpuinfo.write_text(f"{one}\n{one.replace('One', 'Two')}\n")
    monkeypatch.setattr("thaw.stage.environment.CPUINFO", cpuinfo)
    assert has_fast_bfloat16() is fast
    assert get_processor() == "One: a"


def test_without_cpuinfo_bfloat16_is_not_fast(tmp_path, monkeypatch):
    monkeypatch.setattr("thaw.stage.environment.CPUINFO", tmp_path / "none")
    assert not has_fast_bfloat16()
    assert get_processor()


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_the_faster_precision(fast, monkeypatch):
    monkeypatch.setattr("thaw.frozen.openvino.has_fast_bfloat16", lambda: fast)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    network = freeze_model(model, "auto", "float32")
    has_both = len(network.precisions) == 2  # the processor's
    auto = "bfloat16" if fast and has_both else "float32"
    assert network.precision == auto
    network.check_precision("float32", *["bfloat16"] * has_both)


def test_the_frozen_network_repeats_itself_whatever_the_batches(b0):
    network = freeze_model(get_part(b0, IMAGE, LAST), "auto", "uint8")
    (whole,) = predict(network, IMAGES)
    (part,) = predict(network, IMAGES[5:9])
    assert np.array_equal(whole[5:9], part)


@pytest.mark.slow
def test_two_threads_may_run_the_frozen_network_at_once(b0):
    network = freeze_model(get_part(b0, IMAGE, LAST), "float32", "uint8")
    sets = [np.roll(np.repeat(IMAGES, 4, axis=0), i, axis=0) for i in range(4)]
    expected = [predict(network, images)[0] for images in sets]
    with ThreadPoolExecutor(4) as pool:
        for (got,), want in zip(
            pool.map(partial(predict, network), sets), expected, strict=True
        ):
            assert np.array_equal(got, want)


@pytest.mark.slow
@pytest.mark.usefixtures("skips_without_bfloat16")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kept_activations_give_the_logits_of_the_images(b0, precision):
    model = join_head(b0, build_head(1280, 3, dropout=0.2))
    whole = keras.Model(b0.input, model.get_layer(LOGITS).output)
    expected = whole.predict(IMAGES, verbose=0)
    limit = {"float32": 2e-3, "bfloat16": 0.03}[precision]
    tap = find_tap(b0)
    cuts = [make_plan(b0, n, tap_kept=True).cut for n in range(9)]
    cuts[0] = LAST
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
    """Returns what is kept of some layers: float16, but for pooled features."""
    part = get_part(model, start, *ends)
    network = freeze_model(part, precision, str(inputs.dtype))
    outputs = dict(zip(ends, predict(network, inputs), strict=True))
    return {
        name: x if name == LAST else x.astype(np.float16)
        for name, x in outputs.items()
    }


@pytest.mark.slow
def test_keras_stands_in_where_openvino_is_missing(b0, monkeypatch):
    monkeypatch.setattr("thaw.frozen.engines.can_use_openvino", lambda: False)
    part = get_part(b0, IMAGE, find_tap(b0), LAST)
    network = freeze_model(part, "auto", "uint8")
    assert network.engine.startswith("keras")
    assert network.precision == "float32"
    for got, want in zip(
        predict(network, IMAGES), part.predict(IMAGES, verbose=0), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


ENGINES = ["openvino", *slow("keras")]


@pytest.fixture
def use(monkeypatch):
    """Has networks that are frozen now run on an engine."""
    return lambda engine: monkeypatch.setattr(
        "thaw.frozen.engines.can_use_openvino", lambda: engine == "openvino"
    )


@pytest.fixture(scope="module")
def kept(checkpoint, tmp_path_factory):
    """Folders with the backbone as `extract` keeps it, by engine."""
    found = {}

    def keep_once(engine):
        if engine not in found:
            found[engine] = tmp_path_factory.mktemp(engine)
            keep_backbone(checkpoint, "float32", found[engine])
        return found[engine]

    return keep_once


@pytest.mark.parametrize("engine", ENGINES)
def test_a_part_of_the_kept_backbone_is_that_part(b0, kept, use, engine):
    """From the images, from a layer with a shortcut behind it, from the tap."""
    use(engine)
    network = read_frozen(kept(engine))
    assert network.kind == engine
    starts = find_output(b0, list_blocks(b0)[3]), find_tap(b0)
    layers = *starts, find_output(b0, list_blocks(b0)[-2]), LAST
    taken = network.take(IMAGE, *layers)
    own = freeze_model(get_part(b0, IMAGE, *layers), "float32", "uint8")
    assert taken.layers == own.layers
    assert taken.input_bytes == own.input_bytes
    outputs = predict(taken, IMAGES[:9])
    for got, want in zip(outputs, predict(own, IMAGES[:9]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    for start, inputs in zip(starts, outputs, strict=False):
        part = network.take(start, *layers[2:], dtype="float32")
        assert part.input_bytes == 4 * inputs[0].size
        for got, want in zip(predict(part, inputs), outputs[2:], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_backbone_is_kept_in_the_same_bytes(
    b0, kept, use, engine, tmp_path
):
    use(engine)
    for name in ("again", "copied"):
        (tmp_path / name).mkdir()
    keep_backbone(b0, "float32", tmp_path / "again")
    assert copy_backbone(kept(engine), 32, tmp_path / "copied")
    for name in ("again", "copied"):
        assert list_contents(tmp_path / name) == list_contents(kept(engine))
    assert not copy_backbone(kept(engine), 64, tmp_path / "other")


def list_contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


TAP = "block6a_project_bn"


@pytest.mark.parametrize("wide", [True, *slow(False)])
@pytest.mark.parametrize(
    ("engine", "backbone_on", "blocks", "tap", "start"),
    [
        ("openvino", "openvino", 2, TAP, TAP),
        *slow(
            ("openvino", "openvino", 4, TAP, TAP),
            ("openvino", "openvino", 5, TAP, IMAGE),
            ("openvino", "openvino", 2, None, IMAGE),
            ("openvino", "openvino", 0, TAP, TAP),
            ("openvino", "openvino", "all", TAP, IMAGE),
            ("keras", "keras", 2, TAP, TAP),
            ("keras", "openvino", 2, TAP, IMAGE),  # the whole model is kept
        ),
    ],
)
def test_kept_models_are_those_that_were_trained(
    b0, kept, use, tmp_path, engine, backbone_on, blocks, tap, start, wide
):
    use(backbone_on)
    features = kept(backbone_on)
    use(engine)
    plan = make_plan(b0, blocks, tap_kept=True)
    size = sum(describe_backbone(b0).widths) if wide else 1280
    head = build_head(size, 3, dropout=0.2)
    block = find_output(b0, list_blocks(b0)[-1])
    cut = block if plan.cut == POOLED else plan.cut
    model = join_head(b0, build_head(size, 3, dropout=0.2), cut)
    for layer in [*plan.layers, LOGITS]:  # as if it had been trained
        for weight in model.get_layer(layer).weights:
            weight.assign(weight * 1.1 + 0.01)
    (tmp_path / "models").mkdir()
    keep_models(tmp_path / "models", features, head, model, plan)
    kept_there = SimpleNamespace(folder=features, tap=tap)
    network = read_thawed(tmp_path / "models", kept_there)
    assert network.kind == engine and network.start == start
    inputs = IMAGES[:9]
    if start != IMAGE:  # as `extract` keeps it of test
        (inputs,) = predict(read_frozen(features).take(IMAGE, start), inputs)
    heads = read_heads(tmp_path / "models")
    top, behind = predict(network, inputs)
    assert top.shape == (9, 1, 1, 1280)
    pooled = keras.Model(b0.input, pool_blocks(b0)).predict(IMAGES[:9])
    seen = pooled if wide else pooled[:, describe_backbone(b0).last]
    seen[:, size - behind.shape[1] :] = behind
    logits = heads["finetuned"].score(seen)
    expected = get_part(model, IMAGE, LOGITS).predict(IMAGES[:9], verbose=0)
    np.testing.assert_allclose(logits, expected, rtol=2e-3, atol=1e-3)
    pooled = RNG.normal(size=(9, size)).astype(np.float32)
    expected = get_part(head, POOLED, LOGITS).predict(pooled, verbose=0)
    by_head = heads["head"].score(pooled)
    np.testing.assert_allclose(by_head, expected, rtol=1e-3, atol=1e-4)


def test_a_network_of_an_engine_that_is_missing_is_refused(
    tmp_path, monkeypatch
):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    freeze_model(model, "float32", "float32").write(tmp_path)
    monkeypatch.setattr("thaw.frozen.engines.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed"):
        read_network(tmp_path)


def test_openvino_telemetry_is_never_imported(b0):
    freeze_model(get_part(b0, IMAGE, LAST), "auto", "uint8")
    assert sys.modules["openvino_telemetry"] is None


def test_activations_beyond_float16_are_noticed(tmp_path):
    paths = [tmp_path / "a.npy"]
    create_array(paths[0], (2, 1), "float16")
    half = ActivationWriter(paths, Order(2, 1, 8), np.arange(2))
    half[0:1] = np.array([[65000.0]])
    assert not half.overflowed
    half[1:2] = np.array([[70000.0]])
    assert half.overflowed


@pytest.fixture
def write(b0, tmp_path):
    """Writes the pooled features of 24 images in two views, scaled."""

    def write(scale=1.0, dtype="float16"):
        part = get_part(b0, IMAGE, LAST)
        (pooled,) = as_list(part.output)
        scaled = keras.layers.Rescaling(scale)(pooled)
        FrozenPass(
            freeze_model(keras.Model(part.inputs, scaled), "auto", "uint8"),
            {LAST: dtype},
            views=2,
            rows=dict.fromkeys(("train", "validation", "test"), 24),
            gather=dict.fromkeys(
                ("train", "validation", "test"),
                lambda rows, views: augment_images(
                    IMAGES[rows], DIGESTS[rows], views, **AUGMENT
                ),
            ),
            label="writing",
        ).write(Checkpoint(tmp_path))
        return {p.stem: np.load(p) for p in (tmp_path / LAST).iterdir()}

    return write


def test_every_view_is_written_once(write, b0, capsys):
    written = write()
    assert sorted(written) == ["test-0", "train-0", "train-1", "validation-0"]
    expected = b0.predict(IMAGES, verbose=0)
    for name, limit in {"train-0": 0.03, "test-0": 2e-3}.items():
        error = np.linalg.norm(written[name] - expected)
        assert error / np.linalg.norm(expected) < limit, name
    assert not np.array_equal(written["train-1"], written["train-0"])
    assert written["validation-0"].dtype == np.float16
    assert written["test-0"].dtype == np.float32
    assert "96 images" in capsys.readouterr().out


def test_a_range_beyond_float16_is_kept_in_float32(write, capsys):
    written = write(scale=1e6)
    assert {array.dtype for array in written.values()} == {np.dtype("float32")}
    assert all(np.isfinite(array).all() for array in written.values())
    assert "float32" in capsys.readouterr().out


def test_values_that_are_not_finite_are_refused(write):
    with pytest.raises(InputError, match="not finite"):
        write(scale=np.inf)


def test_a_full_disk_is_foreseen(write, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="are free"):
        write()


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


def test_a_frozen_pass_resumes(run_network, monkeypatch, capsys):
    monkeypatch.setattr("thaw.frozen.passes.SECONDS_BETWEEN_NOTES", 1e-9)
    whole, images = run_network("whole")
    with pytest.raises(KeyboardInterrupt):
        run_network("cut", fails_at=(1, 30))
    capsys.readouterr()
    resumed, images_again = run_network("cut")
    assert "resumes a run that was cut off" in capsys.readouterr().out
    # Of 120 images 70 or so were done; some more for the preview.
    assert images_again < images - 60
    assert list(whole) == ["test-0.npy", "train-0.npy", "train-1.npy"]
    for name in whole:
        assert np.array_equal(whole[name], resumed[name]), name
    again, images_again = run_network("cut")
    assert images_again == 0
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


class Engine:
    """Doubles its input; in bfloat16 with some error."""

    kind, name, batch_size, uses_cpu = "openvino", "fake", 4, True
    precisions: ClassVar = ["float32", "bfloat16"]

    def __init__(self, error):
        self.error = error

    def run(self, batches, store, precision):
        factor = 2 + (self.error if precision == "bfloat16" else 0)
        for span, batch in batches:
            store(span, [batch.astype(np.float32) * factor])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    ("error", "precision"),
    [(0.02, "bfloat16"), (1.0, "float32"), (np.nan, "float32")],
)
def test_auto_takes_bfloat16_only_if_it_computes_as_float32(
    error, precision, dtype, capsys
):
    network = FrozenNetwork(Engine(error), {"out": (3,)}, (3,), dtype, "image")
    assert network.use_precision("auto").precision == precision
    said = capsys.readouterr().out
    assert ("computes wrong numbers" in said) == (precision == "float32")
    assert network.use_precision("bfloat16").precision == "bfloat16"
