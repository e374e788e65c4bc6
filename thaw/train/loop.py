"""The one training loop of `head` and `finetune`."""

import math
from dataclasses import replace

import numpy as np

from thaw.network.backend import keras, warn_of_float32
from thaw.run.console import say
from thaw.stage.checkpoints import Checkpoint
from thaw.train.advice import advise
from thaw.train.batches import Batches, feed
from thaw.train.callbacks import (
    Keeper,
    Narrator,
    Validation,
    list_state,
    load_kept,
)
from thaw.train.choice import is_better, limit_loss
from thaw.train.distribution import distribute_model, place_variables
from thaw.train.recipe import (
    L2FromStart,
    Recipe,
    train_in_bfloat16,
)
from thaw.train.results import Training
from thaw.train.weights import weigh_classes

# A lost training of thawed blocks starts again, once, at its rate over this.
SLOWER = 3

# Steps after which a training comes back from beyond the limit. Of 240
# photographs these are many epochs: eight blocks of B4 were there for 36 steps,
# and ended far better than they began.
STEPS_BEYOND = 64


def train_thawed(
    model: keras.Model,
    train: Batches,
    validation: Batches,
    recipe: Recipe,
    checkpoint: Checkpoint,
) -> Training:
    """Trains; a training that is lost starts again, once, at a lower rate.

    How high a rate may be depends on the depth and on the photographs.

    Args:
        model, train, validation, recipe, checkpoint: of `train_model`.
    """
    whole = model, model.layers
    begun = [variable.numpy() for variable in list_state(*whole)]
    known = model, train, validation
    training = train_model(*known, recipe, checkpoint)
    if not training.lost:
        return training
    slower = replace(recipe, learning_rate=recipe.learning_rate / SLOWER)
    say(
        f"training was lost in epoch {len(training.curves)}, at a rate of "
        f"{recipe.learning_rate:g}; it starts again at "
        f"{slower.learning_rate:g}"
    )
    for variable, value in zip(list_state(*whole), begun, strict=True):
        variable.assign(value)
    return train_model(*known, slower, checkpoint.enter("slower"))


def train_model(
    model: keras.Model,
    train: Batches,
    validation: Batches,
    recipe: Recipe,
    checkpoint: Checkpoint,
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
    """
    warn_of_float32()
    begun = model.get_weights()
    layers, model = model.layers, distribute_model(model)
    compile_model(model, layers, recipe, train.steps)
    scored = Validation(
        validation,
        patience=STEPS_BEYOND // train.steps,
    )
    scored.set_model(model)
    keeper = Keeper(checkpoint, scored, layers)
    keeper.set_model(model)
    kept = load_kept(checkpoint)
    if kept:
        keeper.restore(*kept)
        place_variables(model)
    elif recipe.from_trained:
        keeper.start = scored.scores = scored.measure()
    done = len(keeper.curves)
    if kept and not scored.lost:
        say(
            f"resumes a run that was cut off: {done} of {recipe.epochs} epochs "
            "are done" + "; the next one starts again" * (done < recipe.epochs)
        )
    start, classes = keeper.start, model.output_shape[-1]
    scored.highest_loss = limit_loss(start, classes)
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
                Narrator(recipe.epochs, train.steps, done),
                keeper,
            ],
        )
    curves = keeper.curves
    advice = None
    if curves:
        advice = advise(curves, scored.lost, math.log(classes), recipe)
    scores, logits, epochs = scored.scores, scored.logits, len(curves)
    if start and (scored.lost or not is_better(scores, start)):
        model.set_weights(begun)
        scores, logits, epochs = start, None, 0
    return Training(
        epochs,
        scores,
        scored.predict() if logits is None else logits,
        start,
        recipe.learning_rate,
        scored.lost,
        advice,
        curves,
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
    if recipe.l2:
        kernel = layers[-1].kernel
        kernel.regularizer = L2FromStart(kernel, recipe.l2)
    model.optimizer.build(model.trainable_variables)
    # So are those of the metrics: TensorFlow traces a step that makes variables
    # twice.
    model.compute_metrics(
        None, np.zeros(1, int), np.zeros((1, model.output_shape[-1]))
    )
    model.reset_metrics()
    if recipe.mixed_precision:
        say("training in mixed bfloat16; validation in float32")
        train_in_bfloat16(model, layers[:-1])
