"""The one training loop: schedule, progress, best epoch."""

import json
import math
from pathlib import Path

import numpy as np

from thaw.backend import keras, warn_of_float32
from thaw.batches import Batches, feed
from thaw.calibration import fit_temperature
from thaw.checkpoints import Checkpoint
from thaw.console import progress, say
from thaw.distribution import distribute_model, place_variables, share_file
from thaw.errors import InputError
from thaw.files import new_file, write_table
from thaw.process import is_first

KEPT = "training.npz"


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the best epoch by validation; ends a lost run.

    The loss decides, which is less of a lottery than the accuracy on few
    images; an epoch less accurate than the start is never the best.

    Args:
        baseline: validation loss and accuracy to beat, those of the weights
            that training starts from; None where they are random.
        highest_loss: training ends when the validation loss passes this; it
            can't where it starts beyond.

    Attributes:
        epoch: the best one, from 1; None: the start is.
        scores: its validation accuracy and loss.
        weights: its weights.
    """

    def __init__(self, baseline: dict | None, highest_loss: float):
        super().__init__()
        beyond = baseline and not baseline["loss"] <= highest_loss
        self.highest_loss = math.inf if beyond else highest_loss
        self.epoch = None
        self.scores = baseline
        self.least_accuracy = baseline["accuracy"] if baseline else 0.0
        self.weights = None

    def is_better(self, scores: dict) -> bool:
        if scores["accuracy"] < self.least_accuracy:
            return False
        return not self.scores or scores["loss"] < self.scores["loss"]

    def on_train_begin(self, logs=None):
        if self.weights is None:
            self.weights = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        scores = {"accuracy": logs["val_accuracy"], "loss": logs["val_loss"]}
        if not math.isfinite(scores["loss"]):
            say("stopped: the validation loss is not finite")
            self.model.stop_training = True
        elif scores["loss"] > self.highest_loss:
            say(
                f"stopped: the validation loss, {scores['loss']:.3g}, passed "
                f"that of guessing, {self.highest_loss:.3g}; a lower "
                "learning_rate may help"
            )
            self.model.stop_training = True
        elif self.is_better(scores):
            self.epoch, self.scores = epoch + 1, scores
            self.weights = self.model.get_weights()


class Keeper(keras.callbacks.Callback):
    """Keeps after every epoch all that the next ones depend on.

    That is the model's weights, the seed states of its drop layers, which
    Keras saves nowhere, the optimizer's variables, and what `BestEpoch` knows.
    Batches follow from their step.

    Args:
        checkpoint: where it is kept.
        best: which epoch so far is the best.
        start: validation scores before the first epoch, or None.
        layers: of the model, with those that draw.

    Attributes:
        curves: losses and accuracies, a row an epoch.
        over: whether training ended before its last epoch.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        best: BestEpoch,
        start: dict | None,
        layers: list[keras.Layer],
    ):
        super().__init__()
        self.path, self.layers = checkpoint.folder / KEPT, layers
        self.best, self.start = best, start
        self.curves, self.over = [], False

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
        self.over = self.model.stop_training
        if not is_first():
            return
        about = {
            "start": self.start,
            "curves": self.curves,
            "over": self.over,
            "best": [self.best.epoch, self.best.scores],
        }
        variables = [variable.numpy() for variable in self.list_variables()]
        with new_file(self.path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, json.dumps(about), *variables, *self.best.weights)

    def restore(self, about: dict, arrays: list[np.ndarray]) -> None:
        """Goes back to what `load_kept` found."""
        variables = self.list_variables()
        for variable, value in zip(variables, arrays, strict=False):
            variable.assign(value)
        self.curves, self.over = about["curves"], about["over"]
        self.best.epoch, self.best.scores = about["best"]
        self.best.weights = arrays[len(variables) :]


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
            f"{logs['val_loss']:.4f}, accuracy {logs['val_accuracy']:.4f}"
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


def train_model(
    model: keras.Model,
    train: Batches,
    validation: Batches,
    curves: str | Path,
    checkpoint: Checkpoint,
    epochs: int,
    learning_rate: float,
    warmup_epochs: int = 0,
    class_weight: str = "none",
    from_trained: bool = False,
    highest_loss: float = math.inf,
    mixed_precision: bool = False,
) -> tuple[int | None, dict, dict | None]:
    """Trains what is trainable and leaves the weights of the best epoch.

    Goes on behind the last epoch that the checkpoint holds.

    Args:
        model: activations to logits (n, classes).
        train, validation: what it sees.
        curves: CSV, a row an epoch.
        checkpoint: of this stage.
        epochs, learning_rate, warmup_epochs: the schedule.
        class_weight: "none", or "balanced": each image counts in inverse
            proportion to its class's size, in the training loss alone.
        from_trained: score the start as well, and never end worse.
        highest_loss: end early when the validation loss passes this.
        mixed_precision: train all but the last layer in bfloat16.

    Returns:
        The best epoch (None: the start), its validation accuracy and loss, and
        those of the start (None where it was not scored).

    Raises:
        InputError: where no epoch gave a finite validation loss.
    """
    schedule = make_schedule(learning_rate, epochs, warmup_epochs, train.steps)
    warn_of_float32()
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
    kept = load_kept(checkpoint)
    start = kept[0]["start"] if kept else None
    if from_trained and not kept:
        start = model.evaluate(feed(validation), return_dict=True, verbose=0)
    best = BestEpoch(start, highest_loss)
    keeper = Keeper(checkpoint, best, start, layers)
    keeper.set_model(model)
    if kept:
        keeper.restore(*kept)
        place_variables(model)
        say(
            f"goes on from a run that was cut off: of {epochs} epochs "
            f"{len(keeper.curves)} are done, the next one starts again"
        )
    done = len(keeper.curves)
    if not keeper.over and done < epochs:
        train.first_step = done * train.steps
        model.fit(
            feed(train),
            validation_data=feed(validation),
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=train.steps,
            shuffle=False,  # Batches are
            class_weight=weigh_classes(train.labels, class_weight),
            verbose=0,
            callbacks=[Words(epochs, train.steps, done), best, keeper],
        )
    if best.scores is None:
        raise InputError(
            f"training at learning_rate {learning_rate:g} gave no finite "
            "validation loss"
        )
    model.set_weights(best.weights)
    columns = ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    rows = [[row[name] for name in columns] for row in keeper.curves]
    if is_first():
        write_table(curves, columns, rows)
    return best.epoch, best.scores, start


def measure_temperature(model: keras.Model, validation: Batches) -> float:
    """That which calibrates a model's logits, by `fit_temperature`."""
    model = distribute_model(model)
    logits = model.predict(feed(validation), verbose=0)
    return fit_temperature(logits, validation.labels)


def warn_of_guessing(scores: dict, classes: int) -> None:
    """Says so where the best epoch's validation loss is that of guessing."""
    if scores["loss"] > math.log(classes):
        say(
            f"warning: the best validation loss, {scores['loss']:.3g}, is "
            f"above that of guessing among {classes} classes, "
            f"{math.log(classes):.3g}; a lower learning_rate may help, or "
            "the images may not be what the backbone expects"
        )


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
