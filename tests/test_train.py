"""Training: inputs, batches, the kept epoch, resuming, precision."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import slow
from networks import make_training, new_checkpoint
from samples import AUGMENT, DIGESTS, IMAGES, LABELS, ROWS, STILL

from thaw.data.activations import Features
from thaw.data.efficientnet import IMAGE, LAST, LOGITS, POOLED
from thaw.data.views import augment_images, gather_views
from thaw.files.text import write_json
from thaw.frozen.backbone import keep_backbone
from thaw.frozen.engines import freeze_model
from thaw.frozen.passes import FrozenPass
from thaw.network import backend
from thaw.network.backbone import measure_drift
from thaw.network.backend import keras, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import build_head, join_head
from thaw.network.model_file import save_model
from thaw.network.parts import get_part, get_suffix
from thaw.network.plan import CACHED, STREAMED
from thaw.network.pooling import pool_blocks
from thaw.network.thawing import (
    apply_plan,
    describe_backbone,
    find_tap,
    make_plan,
)
from thaw.stage.checkpoints import Checkpoint
from thaw.train.advice import advise
from thaw.train.batches import Batches, feed
from thaw.train.callbacks import Narrator, Validation
from thaw.train.choice import is_better, limit_loss
from thaw.train.inputs import open_inputs
from thaw.train.loop import SLOWER, train_model, train_thawed
from thaw.train.recipe import Recipe
from thaw.train.results import describe_results
from thaw.train.weights import weigh_classes, weigh_images

RNG = np.random.default_rng(0)


def test_mixed_precision_is_that_of_training_alone(tmp_path, capsys):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(24, 8)), np.arange(24) % 3
    seen = {True: set(), False: set()}

    class Spy(keras.layers.Layer):
        def call(self, x, training=False):
            seen[training].add(keras.backend.standardize_dtype(x.dtype))
            return x

    keras.utils.set_random_seed(0)
    head = build_head(8, 3, dropout=0.5)
    part = get_part(head, POOLED, LOGITS)
    inputs = keras.Input((8,))
    x = part.layers[1](inputs)
    model = keras.Model(inputs, part.layers[-1](Spy()(x)))
    train, validation = (
        Batches(lambda rows, views: features[rows], labels, 1, 8, seed)
        for seed in (3, None)
    )
    seen[False].clear()
    train_model(
        model,
        train,
        validation,
        Recipe("head", epochs=1, learning_rate=0.01, mixed_precision=True),
        Checkpoint(tmp_path),
    )
    assert "in mixed bfloat16" in capsys.readouterr().out
    assert seen == {True: {"bfloat16"}, False: {"float32"}}
    assert {layer.dtype_policy.name for layer in head.layers} == {"float32"}
    assert {v.dtype for v in head.weights} == {"float32"}
    save_model(head, tmp_path / "head.keras")
    reloaded = keras.models.load_model(tmp_path / "head.keras")
    assert {layer.dtype_policy.name for layer in reloaded.layers} == {"float32"}


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [4, *slow(1, 5, 12)])
def test_streamed_and_kept_inputs_agree(b0, dataset, tmp_path, blocks):
    tap = find_tap(b0)
    plan = make_plan(b0, blocks, tap_kept=True)
    rows = dict.fromkeys(("train", "validation"), 24)
    images = {s: gather_views(dataset, s, AUGMENT) for s in rows}
    layers = {plan.cut: "float16", POOLED: "float16"}
    pooled = keras.Model(b0.input, pool_blocks(b0))
    network = freeze_model(get_part(pooled, IMAGE, *layers), "float32", "uint8")
    kept_pass = FrozenPass(network, layers, rows, 2, images, "writing")
    kept_pass.write(Checkpoint(tmp_path))
    write_json(
        tmp_path / "about.json",
        {
            "classes": ["a", "b", "c"],
            "views": 2,
            "tap": tap,
            "precision": "float32",
            "engine": network.engine,
        },
    )
    keep_backbone(b0, "float32", tmp_path)
    columns, _ = describe_backbone(b0).pick_columns("all")
    rest = (dataset, Features(tmp_path), tmp_path, 2, AUGMENT, columns)
    kept = open_inputs(plan, *rest)
    streamed = open_inputs(replace(plan, activations=STREAMED), *rest)
    which, views = np.array([3, 0, 21, 3]), np.array([1, 0, 1, 0])
    for split, view in {"train": views, "validation": views * 0}.items():
        (a, front), (b, other) = (
            inputs[split](which, view) for inputs in (kept, streamed)
        )
        a, b = a.astype("float32"), b.astype("float32")
        assert a.shape == (4, *plan.cut_shape)
        assert np.linalg.norm(a - b) < 2e-3 * np.linalg.norm(b)
        assert front.shape == (4, plan.pooled)
        assert np.array_equal(front, other)
    last, _ = describe_backbone(b0).pick_columns("last")
    alone = open_inputs(plan, *rest[:-1], last)["train"](which, views)
    assert alone.shape == (4, *plan.cut_shape)
    assert not np.allclose(
        streamed["train"](which, views)[0],
        streamed["train"](which, views * 0)[0],
    )


def test_a_network_without_frozen_part_is_fed_with_images(b0, dataset):
    plan = make_plan(b0, "all", tap_kept=True)
    inputs = open_inputs(plan, dataset, None, "", 2, AUGMENT, slice(0, 99))
    views = np.arange(24) % 2
    assert np.array_equal(
        inputs["train"](ROWS, views),
        augment_images(IMAGES, DIGESTS, views, **AUGMENT),
    )


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


@pytest.mark.slow
def test_training_changes_exactly_the_planned_layers(b0, tmp_path):
    plan, model, batches = make_training(b0, 3)
    before = {w.path: w.numpy() for w in model.weights}
    checkpoint = b0.get_weights()
    training = train_model(
        get_suffix(model, plan.cut),
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


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, 5])
def test_training_from_the_cache_and_streaming_agree(
    b0, dataset, tmp_path, blocks
):
    """With one view, float32 and no dropout, float16 is the only difference."""
    plan = make_plan(b0, blocks, tap_kept=False)
    assert plan.activations == CACHED
    weights = b0.get_weights()
    features = tmp_path / "features"
    features.mkdir()
    keep_backbone(b0, "float32", features)
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
            dataset,
            SimpleNamespace(folder=features, wanted_precision="float32"),
            tmp_path / "kept",
            1,
            still,
            describe_backbone(b0).last,
        )
        train, validation = (
            Batches(inputs[split], LABELS, 1, 8, seed)
            for split, seed in {"train": 3, "validation": None}.items()
        )
        train_model(
            fold_normalization(get_suffix(model, plan.cut)),
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


@pytest.mark.slow
def test_training_recovers_from_a_start_worse_than_guessing(b0, tmp_path):
    plan, model, batches = make_training(b0, 1)
    suffix = get_suffix(model, plan.cut)
    model.get_layer(LOGITS).bias.assign([400.0, 0.0, 0.0])
    training = train_from(
        suffix, batches, tmp_path, epochs=6, learning_rate=0.3
    )
    assert training.start["calibrated_loss"] > math.log(3)
    assert len(training.curves) == 6


def test_a_run_without_any_finite_loss_is_lost(b0, tmp_path):
    _, model, batches = make_training(b0, 0)
    training = train_model(
        get_part(model, LAST, LOGITS),
        batches(1),
        batches(None),
        Recipe("head", epochs=2, learning_rate=1e38),
        new_checkpoint(tmp_path),
    )
    assert training.lost and len(training.curves) == 1
    assert "try head.learning_rate=1e+37" in training.advice


def test_a_diverged_run_stops_and_keeps_the_start(b0, tmp_path, monkeypatch):
    monkeypatch.setattr("thaw.train.loop.STEPS_BEYOND", 0)
    plan, model, batches = make_training(b0, 1)
    suffix = get_suffix(model, plan.cut)
    before = suffix.get_weights()
    training = train_from(
        suffix, batches, tmp_path, epochs=5, learning_rate=10.0
    )
    assert training.epochs == 0 and training.scores == training.start
    assert "finetune.learning_rate=1" in training.advice
    assert len(training.curves) == 1
    for a, b in zip(before, suffix.get_weights(), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("epochs", "losses", "lost"),
    [
        (9, [2.0, 2.0, 0.5, 2.0, 2.0], False),  # it comes back
        (9, [2.0, 2.0, 2.0], True),
        (3, [0.5, 0.5, 2.0], True),  # it can't any more
        (9, [math.nan], True),
    ],
)
def test_a_training_is_lost_where_it_stays_beyond_the_limit(
    epochs, losses, lost, monkeypatch
):
    scored = Validation(None, patience=2)
    scored.highest_loss = 1.0
    scored.set_params({"epochs": epochs})
    scored.set_model(model := SimpleNamespace())
    for epoch, loss in enumerate(losses):
        scores = score(0.5, loss, loss=loss, temperature=1.0)
        monkeypatch.setattr(scored, "measure", lambda scores=scores: scores)
        scored.on_epoch_end(epoch, {})
    assert model.stop_training == scored.lost == lost


def test_a_lost_training_starts_again_at_a_lower_rate(
    tmp_path, monkeypatch, capsys
):
    """As if it had that rate from the first, and also where it is cut off."""
    high, low = 0.09, 0.09 / SLOWER
    lost = score(0.3, 1.0, loss=9.0, temperature=1.0)
    fine = score(0.9, 0.2, loss=0.2, temperature=1.0)
    scores = []

    def measure(self):
        return scores.pop(0)

    monkeypatch.setattr(Validation, "measure", measure)
    start = score(0.5, 0.5, loss=0.5, temperature=1.0)
    scores[:] = [start, fine, fine]
    wanted, at_once = train_blocks(tmp_path / "low", low)
    assert at_once.epochs == 2 and not at_once.lost
    capsys.readouterr()

    scores[:] = [start, fine, lost, start, fine]
    with pytest.raises(IndexError):
        train_blocks(tmp_path / "cut", high)
    assert "lost in epoch 2, at a rate of 0.09" in capsys.readouterr().out
    scores[:] = [fine]
    weights, training = train_blocks(tmp_path / "cut", high)
    assert not scores
    assert capsys.readouterr().out.count("1 of 2 epochs are done") == 1
    assert (training.learning_rate, training.epochs) == (low, 2)
    assert training.curves == at_once.curves
    assert all(map(np.array_equal, weights, wanted))


def train_blocks(folder, learning_rate):
    make_deterministic(5)
    model = get_part(build_head(8, 3, dropout=0.5), POOLED, LOGITS)
    batches = [
        Batches(lambda rows, views: FEATURES[rows], np.arange(40) % 3, 1, 8, s)
        for s in (3, None)
    ]
    folder.mkdir(exist_ok=True)
    recipe = Recipe("finetune", 2, learning_rate, from_trained=True)
    training = train_thawed(model, *batches, recipe, Checkpoint(folder))
    return model.get_weights(), training


def test_a_training_that_knows_the_sizes_of_classes_alone_is_lost():
    start = score(0.9, 0.3)
    sizes = -0.5 * math.log(0.5) - 0.5 * math.log(0.5 / 3)
    assert limit_loss(start, 4) < sizes < math.log(4)
    assert limit_loss(score(0.1, 2.0), 4) == math.inf
    assert limit_loss(None, 4) == math.inf


def test_folded_blocks_train_in_mixed_precision(b0, tmp_path):
    losses = {}
    for mixed in (False, True):
        plan, model, batches = make_training(b0, 1)
        suffix = fold_normalization(get_suffix(model, plan.cut))
        training = train_from(
            suffix,
            batches,
            tmp_path,
            epochs=1,
            learning_rate=1e-3,
            mixed_precision=mixed,
        )
        losses[mixed] = training.curves[0]["loss"]
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.02)


def test_a_training_step_is_traced_once(b0, tmp_path, monkeypatch):
    plan, model, batches = make_training(b0, 0)
    suffix = get_suffix(model, plan.cut)
    step, traced = type(suffix).train_step, []

    def train_step(self, data):
        traced.append(self)
        return step(self, data)

    monkeypatch.setattr(type(suffix), "train_step", train_step)
    train_from(suffix, batches, tmp_path, epochs=2, learning_rate=1e-3)
    assert len(traced) == 1


@pytest.mark.slow
def test_the_last_epoch_is_kept_or_the_start(b0, tmp_path, monkeypatch):
    """A better epoch in between is not kept."""
    accuracies = iter([0.5, 0.9, 0.6, 0.5, 0.9, 0.4])

    def measure(self):
        return score(next(accuracies), 0.5, loss=0.5, temperature=1.0)

    monkeypatch.setattr(Validation, "measure", measure)
    for epochs in (2, 0):
        plan, model, batches = make_training(b0, 1)
        suffix = get_suffix(model, plan.cut)
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
def test_curves_lead_to_advice(losses, lost, wanted):
    curves = [{"val_calibrated_loss": x, "val_loss": x} for x in losses]
    advice = advise(curves, lost, math.log(3), Recipe("finetune", 6, 0.002))
    assert advice is None if wanted is None else wanted in advice


FEATURES = RNG.normal(size=(40, 8)).astype(np.float32)


def train(folder, learning_rate=0.05, rows=40, **options):
    """Trains a head with dropout; returns its weights and its curves.

    Where training scores its start, the head only guesses.
    """
    make_deterministic(5)
    model = get_part(build_head(8, 3, dropout=0.5), POOLED, LOGITS)
    if "from_trained" in options:
        model.get_layer(LOGITS).kernel.assign(np.zeros((8, 3)))
    labels = np.arange(rows) % 3
    batches = {
        seed: Batches(lambda which, views: FEATURES[which], labels, 1, 8, seed)
        for seed in (3, None)
    }
    folder.mkdir(exist_ok=True)
    training = train_model(
        model,
        batches[3],
        batches[None],
        Recipe("head", 6, learning_rate, **options),
        Checkpoint(folder),
    )
    return model.get_weights(), training.curves


def test_l2_holds_the_weights_at_their_start(tmp_path):
    start, *moved = (
        train(tmp_path / name, learning_rate=rate, l2=l2)[0][-2]
        for name, rate, l2 in [
            ("start", 1e-12, 0.0),
            ("free", 0.05, 0.0),
            ("held", 0.05, 1.0),
            ("bound", 0.05, 100.0),
        ]
    )
    free, held, bound = (np.linalg.norm(x - start) for x in moved)
    assert np.linalg.norm(start) > 0.5  # zero is elsewhere
    assert bound < 0.1 * held and held < 0.5 * free


@pytest.mark.parametrize(
    "options",
    [{"l2": 0.1}, *slow({"from_trained": True})],
)
def test_a_resumed_training_equals_an_uninterrupted_one(
    tmp_path, monkeypatch, capsys, options
):
    whole, curves = train(tmp_path / "whole", **options)
    said = Narrator.on_epoch_end

    def cut_off(self, epoch, logs=None):
        said(self, epoch, logs)
        if epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Narrator, "on_epoch_end", cut_off)
        train(tmp_path / "cut", **options)
    capsys.readouterr()
    resumed, curves_of_both = train(tmp_path / "cut", **options)
    said = capsys.readouterr().out
    assert "3 of 6 epochs are done" in said and said.count("epoch  ") == 3
    assert curves_of_both == curves
    for a, b in zip(whole, resumed, strict=True):
        assert np.array_equal(a, b)


def test_a_finished_training_is_not_done_again(tmp_path, capsys):
    whole, curves = train(tmp_path / "a")
    capsys.readouterr()
    again, curves_again = train(tmp_path / "a")
    said = capsys.readouterr().out
    assert "epoch  " not in said and "6 of 6 epochs are done\n" in said
    assert curves_again == curves
    assert all(map(np.array_equal, whole, again))


def test_a_diverged_training_is_not_resumed(tmp_path, capsys, monkeypatch):
    """A run cut off after its last epoch does not train again."""
    monkeypatch.setattr("thaw.train.loop.STEPS_BEYOND", 0)
    options = {"from_trained": True, "learning_rate": 1e4}
    whole, curves = train(tmp_path / "a", **options)
    assert len(curves) == 1
    again, curves_again = train(tmp_path / "a", **options)
    assert curves_again == curves
    assert all(map(np.array_equal, whole, again))


@pytest.mark.slow
def test_training_reports_progress_within_an_epoch(
    tmp_path, monkeypatch, capsys
):
    train(tmp_path / "quick")
    assert not capsys.readouterr().err
    monkeypatch.setattr("thaw.run.console.SECONDS_BETWEEN_LINES", 0)
    train(tmp_path / "slow")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 30 and lines[2].startswith("training: 3 of 30 batches")


@pytest.mark.slow
def test_float32_on_a_gpu_is_warned_of_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backend, "sees_gpu", lambda: True)
    backend.warn_of_float32.cache_clear()
    for folder in ("a", "b"):
        train(tmp_path / folder)
    backend.warn_of_float32.cache_clear()
    assert capsys.readouterr().out.count("computes there in float32") == 1


def test_balanced_classes_weigh_the_same():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = weigh_classes(labels, "balanced")
    total = [weights[label] * (labels == label).sum() for label in range(3)]
    assert total == pytest.approx([10 / 3] * 3)
    assert weigh_classes(labels, "none") is None
    assert (weigh_images(labels, "none") == 1).all()
    assert weigh_images(labels, "balanced").sum() == pytest.approx(len(labels))


@pytest.mark.slow
def test_class_weights_change_training_and_leave_validation(tmp_path):
    """Classes of equal size have equal weights, which change nothing."""
    for rows, equal in ((39, True), (40, False)):
        plain, _ = train(tmp_path / f"{rows}", rows=rows)
        balanced, _ = train(
            tmp_path / f"{rows}-balanced", rows=rows, class_weight="balanced"
        )
        assert all(map(np.array_equal, plain, balanced)) == equal


def test_no_epoch_leaves_the_start(b0, tmp_path):
    plan, model, batches = make_training(b0, 1)
    suffix = get_suffix(model, plan.cut)
    before = suffix.get_weights()
    training = train_from(
        suffix, batches, tmp_path, epochs=0, learning_rate=1e-3
    )
    assert training.epochs == 0 and training.curves == []
    assert training.scores == training.start and training.advice is None
    for one, other in zip(suffix.get_weights(), before, strict=True):
        assert np.array_equal(one, other)
    (said,) = describe_results(training)
    assert said.endswith("of the head alone, which is shipped")
