"""The one training loop: schedule, progress, best epoch."""

import math
from pathlib import Path

from thaw.backend import keras
from thaw.batches import Batches, feed
from thaw.console import progress, say
from thaw.errors import InputError
from thaw.files import new_file


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the best epoch by validation; ends a lost run.

    The loss decides, which is less of a lottery than the accuracy on few
    images; an epoch less accurate than the start is never the best.

    Args:
        baseline: validation loss and accuracy to beat, those of the weights
            that training starts from; None where they are random.
        highest_loss: training ends when the validation loss passes this; it
            can't where it starts beyond.
    """

    def __init__(self, baseline: dict | None, highest_loss: float):
        super().__init__()
        beyond = baseline and not baseline["loss"] <= highest_loss
        self.highest_loss = math.inf if beyond else highest_loss
        self.epoch = None  # the best one, from 1; None: the start is best
        self.scores = baseline
        self.least_accuracy = baseline["accuracy"] if baseline else 0.0

    def is_better(self, scores: dict) -> bool:
        if scores["accuracy"] < self.least_accuracy:
            return False
        return not self.scores or scores["loss"] < self.scores["loss"]

    def on_train_begin(self, logs=None):
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

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


class Curves(keras.callbacks.CSVLogger):
    """A row an epoch, counted from 1 like everywhere else."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch + 1, logs)


class Words(keras.callbacks.Callback):
    """A bar over all steps on a terminal, and a line for each epoch."""

    def __init__(self, epochs: int, steps: int):
        super().__init__()
        self.epochs, self.steps = epochs, steps

    def on_train_begin(self, logs=None):
        self.context = progress(self.epochs * self.steps, "training", "batches")
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


def train_model(
    model: keras.Model,
    train: Batches,
    validation: Batches,
    curves: str | Path,
    epochs: int,
    learning_rate: float,
    warmup_epochs: int = 0,
    from_trained: bool = False,
    highest_loss: float = math.inf,
) -> tuple[int | None, dict, dict | None]:
    """Trains what is trainable and leaves the weights of the best epoch.

    Args:
        model: activations to logits (n, classes).
        train, validation: what it sees.
        curves: CSV, a row an epoch.
        epochs, learning_rate, warmup_epochs: the schedule.
        from_trained: score the start as well, and never end worse.
        highest_loss: end early when the validation loss passes this.

    Returns:
        The best epoch (None: the start), its validation accuracy and loss, and
        those of the start (None where it was not scored).

    Raises:
        InputError: where no epoch gave a finite validation loss.
    """
    schedule = make_schedule(learning_rate, epochs, warmup_epochs, train.steps)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = None
    if from_trained:
        start = model.evaluate(feed(validation), return_dict=True, verbose=0)
    best = BestEpoch(start, highest_loss)
    with new_file(curves) as unfinished:
        model.fit(
            feed(train),
            validation_data=feed(validation),
            epochs=epochs,
            steps_per_epoch=train.steps,
            shuffle=False,  # Batches are
            verbose=0,
            callbacks=[
                Words(epochs, train.steps),
                best,
                Curves(unfinished),
            ],
        )
    if best.scores is None:
        raise InputError(
            f"training at learning_rate {learning_rate:g} gave no finite "
            "validation loss"
        )
    return best.epoch, best.scores, start
