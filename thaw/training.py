"""The one training loop: schedule, progress, what is kept, advice."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.backend import keras, warn_of_float32
from thaw.batches import Batches, feed
from thaw.calibration import score_logits
from thaw.checkpoints import Checkpoint
from thaw.console import progress, say
from thaw.distribution import distribute_model, place_variables, share_file
from thaw.errors import InputError
from thaw.files import new_file, write_table
from thaw.process import is_first

KEPT = "training.npz"

# Columns of the learning curves.
CURVES = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
CURVES += ["val_calibrated_loss"]

# Of advice: the share of the loss of guessing that a training must fall below;
# the share of the epochs after which, by the cosine, a tenth of the steps' sum
# is left; and how far those may still bring the loss down.
CRAWLING = 0.9
UNTIL = 0.7
IMPROVING = 0.02


class Validation(keras.callbacks.Callback):
    """Scores every epoch on the validation images; ends a lost training.

    Args:
        batches: the validation images.
        highest_loss: training ends when the calibrated validation loss passes
            this: not the loss as it is, which a few wrong predictions of great
            confidence may double in an epoch from which training recovers.

    Attributes:
        scores: those of the last epoch, by `score_logits`.
        lost: whether the last epoch's loss passed `highest_loss`, or was not
            finite.
    """

    def __init__(self, batches: Batches, highest_loss: float):
        super().__init__()
        self.batches, self.highest_loss = batches, highest_loss
        self.scores, self.lost = None, False

    def measure(self) -> dict[str, float]:
        logits = self.model.predict(feed(self.batches), verbose=0)
        return score_logits(logits, self.batches.labels)

    def on_epoch_end(self, epoch, logs=None):
        self.scores = self.measure()
        logs.update({f"val_{key}": x for key, x in self.scores.items()})
        loss = self.scores["calibrated_loss"]
        self.lost = not loss <= self.highest_loss  # or NaN
        self.model.stop_training = self.lost


class Keeper(keras.callbacks.Callback):
    """Keeps after every epoch all that the next ones depend on.

    That is the model's weights, the seed states of its drop layers, which
    Keras saves nowhere, and the optimizer's variables. Batches follow from
    their step.

    Args:
        checkpoint: where it is kept.
        validation: what scores the epochs.
        start: validation scores before the first epoch, or None.
        layers: of the model, with those that draw.

    Attributes:
        curves: losses and accuracies, a row an epoch.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        validation: Validation,
        start: dict | None,
        layers: list[keras.Layer],
    ):
        super().__init__()
        self.path, self.layers = checkpoint.folder / KEPT, layers
        self.validation, self.start, self.curves = validation, start, []

    def list_variables(self) -> list[keras.Variable]:
        seeds = [
            layer.seed_generator.state
            for layer in self.layers
            if isinstance(layer, keras.layers.Dropout) and layer.rate > 0
        ]
        weights, optimizer = self.model.weights, self.model.optimizer
        return [*weights, *seeds, *optimizer.variables]

    def on_epoch_end(self, epoch, logs=None):
        self.curves.append({"epoch": epoch + 1, **logs})
        if not is_first():
            return
        about = {
            "start": self.start,
            "curves": self.curves,
            "scores": self.validation.scores,
            "lost": self.validation.lost,
        }
        variables = [variable.numpy() for variable in self.list_variables()]
        with new_file(self.path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, json.dumps(about), *variables)

    def restore(self, about: dict, arrays: list[np.ndarray]) -> None:
        """Goes back to what `load_kept` found."""
        for variable, value in zip(self.list_variables(), arrays, strict=True):
            variable.assign(value)
        self.curves = about["curves"]
        self.validation.scores = about["scores"]
        self.validation.lost = about["lost"]


def load_kept(checkpoint: Checkpoint) -> tuple[dict, list[np.ndarray]] | None:
    """What a `Keeper` kept in a run that was cut off."""
    file = share_file(checkpoint.folder / KEPT)
    if not file:
        return None
    with np.load(file, allow_pickle=False) as kept:
        about, *arrays = kept.values()
    return json.loads(str(about)), arrays


class Words(keras.callbacks.Callback):
    """Progress over all steps, and a line for each epoch."""

    def __init__(self, epochs: int, steps: int, done: int):
        super().__init__()
        self.epochs, self.steps, self.done = epochs, steps, done

    def on_train_begin(self, logs=None):
        total, done = (n * self.steps for n in (self.epochs, self.done))
        self.context = progress(total, "training", "batches", done)
        self.bar = self.context.__enter__()

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.clear()
        say(
            f"epoch {epoch + 1:2d}/{self.epochs}: loss {logs['loss']:.4f}, "
            f"accuracy {logs['accuracy']:.4f}; validation loss "
            f"{logs['val_loss']:.4f} ({logs['val_calibrated_loss']:.4f} after "
            f"temperature), accuracy {logs['val_accuracy']:.4f}"
        )

    def on_train_end(self, logs=None):
        self.context.__exit__(None, None, None)


def make_schedule(
    learning_rate: float, epochs: int, warmup_epochs: int, steps: int
):
    """Up to `learning_rate` in a line, down to 0 along a cosine."""
    warmup = min(warmup_epochs, epochs) * steps
    return keras.optimizers.schedules.CosineDecay(
        learning_rate / max(warmup, 1),
        decay_steps=max(epochs * steps - warmup, 1),
        warmup_target=learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def mix_precision(model: keras.Model, layers: list[keras.Layer]) -> None:
    """Has training steps, and nothing else, compute in bfloat16.

    Variables stay in float32, and so do the policies that layers are saved
    with.

    Args:
        model: what is trained.
        layers: of it, those that compute in bfloat16.
    """
    step = model.train_step

    def train_step(*args):
        policies = [layer.dtype_policy for layer in layers]
        try:
            for layer in layers:
                layer.dtype_policy = "mixed_bfloat16"
            return step(*args)
        finally:
            for layer, policy in zip(layers, policies, strict=True):
                layer.dtype_policy = policy

    model.train_step = train_step


@dataclass(frozen=True)
class Training:
    """What came of a training.

    Attributes:
        epochs: that the weights have seen; 0: they are those of the start.
        scores: of these weights on validation, by `score_logits`.
        start: the scores of the start; None where it is random.
        advice: a sentence on what to try next, or None.
    """

    epochs: int
    scores: dict[str, float]
    start: dict[str, float] | None
    advice: str | None

    def describe(self) -> Iterator[str]:
        """What came of it, for people, and the advice."""
        accuracy = f"validation accuracy {self.scores['accuracy']:.4f}"
        if self.start is None:
            yield accuracy
        elif self.epochs:
            before = self.start["accuracy"]
            yield f"{accuracy} ({before:.4f} with the head alone)"
        else:
            yield (
                "fine-tuning did not beat the head alone on validation, so "
                "that is shipped"
            )
        if self.advice:
            yield f"advice: {self.advice}"


def train_model(
    model: keras.Model,
    train: Batches,
    validation: Batches,
    curves: str | Path,
    checkpoint: Checkpoint,
    epochs: int,
    learning_rate: float,
    section: str,
    warmup_epochs: int = 0,
    class_weight: str = "none",
    from_trained: bool = False,
    mixed_precision: bool = False,
) -> Training:
    """Trains what is trainable, and leaves the weights of the last epoch.

    The rate has fallen to 0 by then, and on real features no score of
    validation picks an epoch that is better on average. A training that starts
    from a trained model leaves the weights of the start where its own are no
    better, by `is_better`, or where training was lost: its validation loss
    passed that of guessing.

    Goes on behind the last epoch that the checkpoint holds.

    Args:
        model: activations to logits (n, classes).
        train, validation: what it sees.
        curves: CSV, a row an epoch.
        checkpoint: of this stage.
        epochs, learning_rate, warmup_epochs: the schedule.
        section: of params.yaml that these are from, for advice.
        class_weight: "none", or "balanced": each image counts in inverse
            proportion to its class's size, in the training loss alone.
        from_trained: score the start as well, and never end worse.
        mixed_precision: train all but the last layer in bfloat16.

    Raises:
        InputError: where a random start led to no finite validation loss.
    """
    schedule = make_schedule(learning_rate, epochs, warmup_epochs, train.steps)
    warn_of_float32()
    begun = model.get_weights()
    layers, model = model.layers, distribute_model(model)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    if mixed_precision:
        say("training in mixed bfloat16; validation in float32")
        mix_precision(model, layers[:-1])
    scored = Validation(validation, math.inf)
    scored.set_model(model)
    kept = load_kept(checkpoint)
    start = kept[0]["start"] if kept else None
    if from_trained and not kept:
        start = scored.measure()
    guessing = math.log(model.output_shape[-1])
    # A start beyond guessing may come down yet.
    if start and start["calibrated_loss"] <= guessing:
        scored.highest_loss = guessing
    keeper = Keeper(checkpoint, scored, start, layers)
    keeper.set_model(model)
    if kept:
        keeper.restore(*kept)
        place_variables(model)
        say(
            f"goes on from a run that was cut off: of {epochs} epochs "
            f"{len(keeper.curves)} are done, the next one starts again"
        )
    done = len(keeper.curves)
    if not scored.lost and done < epochs:
        train.first_step = done * train.steps
        model.fit(
            feed(train),
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=train.steps,
            shuffle=False,  # Batches are
            class_weight=weigh_classes(train.labels, class_weight),
            verbose=0,
            callbacks=[scored, Words(epochs, train.steps, done), keeper],
        )
    if is_first():
        rows = [[row[name] for name in CURVES] for row in keeper.curves]
        write_table(curves, CURVES, rows)
    advice = advise(
        keeper.curves, scored.lost, guessing, section, learning_rate, epochs
    )
    if not start and not math.isfinite(scored.scores["loss"]):
        raise InputError(advice)
    if start and (scored.lost or not is_better(scored.scores, start)):
        model.set_weights(begun)
        return Training(0, start, start, advice)
    return Training(len(keeper.curves), scored.scores, start, advice)


def is_better(scores: dict[str, float], start: dict[str, float]) -> bool:
    """By validation accuracy; where it is equal, by the calibrated loss.

    The loss alone would not do: far from ImageNet fine-tuning gains points of
    accuracy while its few wrong predictions grow more certain.
    """
    keys = [(x["accuracy"], -x["calibrated_loss"]) for x in (scores, start)]
    return keys[0] > keys[1]


def advise(
    curves: Sequence[dict],
    lost: bool,
    guessing: float,
    section: str,
    learning_rate: float,
    epochs: int,
) -> str | None:
    """What the learning curves ask for: another rate, more epochs, or nothing.

    Args:
        curves: a row an epoch.
        lost: whether training ended before its last epoch.
        guessing: the loss of guessing, ln(classes).
        section: of params.yaml.
        learning_rate, epochs: as they were.
    """
    losses = [row["val_calibrated_loss"] for row in curves]
    rate = f"{section}.learning_rate"
    if lost or not math.isfinite(losses[-1]):
        return (
            f"training diverged in epoch {len(curves)}, its validation loss "
            f"is {losses[-1]:.3g} (guessing has {guessing:.3g}): "
            f"try {rate}={learning_rate / 10:g}"
        )
    if losses[-1] > CRAWLING * guessing:
        return (
            f"training hardly began: the validation loss is {losses[-1]:.3g}, "
            f"that of guessing {guessing:.3g}; try {rate}="
            f"{learning_rate * 10:g}, or check that the images are what the "
            "backbone expects"
        )
    before = losses[int(UNTIL * len(losses)) - 1] if len(losses) > 1 else 0.0
    if losses[-1] < before - IMPROVING:
        return (
            "the validation loss after temperature still fell at the end, from "
            f"{before:.3g} to {losses[-1]:.3g}: try {section}.epochs="
            f"{2 * epochs}, or {rate}={2 * learning_rate:g}"
        )
    return None


def weigh_classes(labels: np.ndarray, class_weight: str) -> dict | None:
    """What Keras's `fit` takes as class_weight.

    Args:
        labels: (n,) int, of the training images.
        class_weight: "none" or "balanced", n / (classes * count of the class),
            as scikit-learn has it.
    """
    if class_weight == "none":
        return None
    from sklearn.utils.class_weight import compute_class_weight

    classes = np.unique(labels)
    weights = compute_class_weight("balanced", classes=classes, y=labels)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))
