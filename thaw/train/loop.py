"""The one training loop of `head` and `finetune`."""

import math
from dataclasses import dataclass

import numpy as np

from thaw.errors import InputError
from thaw.network.backend import keras, warn_of_float32
from thaw.run.checkpoints import Checkpoint
from thaw.run.console import say
from thaw.train.advice import advise
from thaw.train.batches import Batches, feed
from thaw.train.callbacks import (
    Keeper,
    Narrator,
    Progress,
    Validation,
    load_kept,
)
from thaw.train.choice import is_better, limit_loss
from thaw.train.distribution import distribute_model, place_variables
from thaw.train.recipe import Recipe, train_in_bfloat16, weigh_classes


@dataclass(frozen=True)
class Training:
    """What came of a training.

    Attributes:
        epochs: that the weights have seen; 0: they are those of the start.
        scores: of these weights on validation, by `score_logits`.
        logits: of these weights on validation, (n, classes).
        start: the scores of the start; None where it is random.
        advice: a sentence on what to try next, or None.
        curves: losses and accuracies, a row an epoch.
    """

    epochs: int
    scores: dict[str, float]
    logits: np.ndarray
    start: dict[str, float] | None
    advice: str | None
    curves: list[dict]


def train_model(
    model: keras.Model,
    train: Batches,
    validation: Batches,
    recipe: Recipe,
    checkpoint: Checkpoint,
    quiet: bool = False,
) -> Training:
    """Trains what is trainable, and leaves the weights of the last epoch.

    A training that starts from a trained model leaves the weights of the start
    where its own are no better, by `is_better`, or where training was lost.
    Resumes after the last epoch that the checkpoint holds.

    Args:
        model: activations to logits (n, classes).
        train, validation: what it sees.
        recipe: schedule and loss.
        checkpoint: of this stage.
        quiet: score the last epoch alone, and say nothing of the others.

    Raises:
        InputError: where a random start led to no finite validation loss.
    """
    warn_of_float32()
    begun = model.get_weights()
    layers, model = model.layers, distribute_model(model)
    compile_model(model, layers, recipe, train.steps)
    scored = Validation(validation, recipe.epochs if quiet else 1)
    scored.set_model(model)
    keeper = Keeper(checkpoint, scored, layers)
    keeper.set_model(model)
    if kept := load_kept(checkpoint):
        keeper.restore(*kept)
        place_variables(model)
        if not quiet:
            say(
                f"resumes a run that was cut off: {len(keeper.curves)} of "
                f"{recipe.epochs} epochs are done; the next one starts again"
            )
    elif recipe.from_trained:
        keeper.start = scored.measure()
    start, classes = keeper.start, model.output_shape[-1]
    scored.highest_loss = limit_loss(start, classes)
    done = len(keeper.curves)
    if not scored.lost and done < recipe.epochs:
        train.first_step = done * train.steps
        model.fit(
            feed(train),
            initial_epoch=done,
            epochs=recipe.epochs,
            steps_per_epoch=train.steps,
            shuffle=False,  # Batches are
            class_weight=weigh_classes(train.labels, recipe.class_weight),
            verbose=0,
            callbacks=[
                scored,
                (Progress if quiet else Narrator)(
                    recipe.epochs, train.steps, done
                ),
                keeper,
            ],
        )
    curves = keeper.curves
    advice = None
    if not quiet:
        advice = advise(curves, scored.lost, math.log(classes), recipe)
    if not start and not math.isfinite(scored.scores["loss"]):
        raise InputError(advice or "training diverged")
    if start and (scored.lost or not is_better(scored.scores, start)):
        model.set_weights(begun)
        return Training(0, start, scored.predict(), start, advice, curves)
    return Training(
        len(curves), scored.scores, scored.predict(), start, advice, curves
    )


def compile_model(
    model: keras.Model, layers: list[keras.Layer], recipe: Recipe, steps: int
) -> None:
    """Gives the model its loss and its optimizer, with all its variables.

    Args:
        model: what is trained.
        layers: of it, before it was distributed.
        recipe: schedule and precision.
        steps: in an epoch.
    """
    model.compile(
        optimizer=keras.optimizers.Adam(
            recipe.make_schedule(steps), global_clipnorm=recipe.global_clipnorm
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    if recipe.mixed_precision:
        say("training in mixed bfloat16; validation in float32")
        train_in_bfloat16(model, layers[:-1])
