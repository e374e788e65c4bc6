"""The one training loop: schedule, progress, what is kept, advice."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thaw.errors import InputError
from thaw.files.tables import write_table
from thaw.network.backend import keras, warn_of_float32
from thaw.run.checkpoints import Checkpoint
from thaw.run.console import say
from thaw.run.process import is_first
from thaw.train.advice import advise
from thaw.train.batches import Batches, feed
from thaw.train.callbacks import CURVES, Keeper, Validation, Words, load_kept
from thaw.train.distribution import (
    distribute_model,
    place_variables,
)
from thaw.train.schedule import make_schedule, mix_precision, weigh_classes

CURVES += ["val_calibrated_loss"]


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
