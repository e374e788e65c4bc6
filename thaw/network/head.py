"""Heads, whole models, and files of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from thaw.data.efficientnet import LOGITS, POOLED
from thaw.errors import InputError
from thaw.linear.temperature import fit_any_temperature
from thaw.network.backend import keras
from thaw.network.rounds import Labels, calibrate_round, fit_round

# Added to the variance of pooled features, which is small: 0.01 to 0.08 in B4.
# Without it BatchNormalization makes the faintest features as loud as all
# others, and 100 photographs teach the head far less.
EPSILON = 0.1

FOLDS = 5  # of the training images; the temperature of the start is by them


def build_head(features: int, classes: int, dropout: float) -> keras.Model:
    """Pooled features (n, features) to probabilities (n, classes)."""
    pooled = keras.Input((features,), name=POOLED)
    x = keras.layers.BatchNormalization(epsilon=EPSILON, name="head_bn")(pooled)
    x = keras.layers.Dropout(dropout, name="head_dropout")(x)
    x = keras.layers.Dense(classes, name=LOGITS)(x)
    probabilities = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(pooled, probabilities, name="head")


def standardize_head(head: keras.Model, views: Sequence[np.ndarray]) -> None:
    """Starts BatchNormalization with the statistics of all training features.

    Keras's start, mean 0 and variance 1, takes hundreds of steps to forget:
    more than a small set has.

    Args:
        head: from `build_head`.
        views: (n, features) each.
    """
    mean = np.mean([view.mean(axis=0) for view in views], axis=0)
    square = np.mean([np.square(view).mean(axis=0) for view in views], axis=0)
    normalization = head.get_layer("head_bn")
    normalization.moving_mean.assign(mean)
    normalization.moving_variance.assign(np.maximum(square - mean**2, 0))


def start_head(
    head: keras.Model,
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    sets: np.ndarray,
) -> None:
    """Starts a head from sums over the training features.

    BatchNormalization starts as `standardize_head` has it; the dense layer with
    the linear discriminants of view 0. Their logits are divided by the
    temperature that suits images which they were not fitted to.

    Args:
        head: from `build_head`.
        views: (n, features) each.
        labels: (n,) int.
        sets: (n,) int, of images that belong together: `find_sets`.
    """
    standardize_head(head, views)
    normalization = head.get_layer("head_bn")
    mean = normalization.moving_mean.numpy()
    variance = normalization.moving_variance.numpy()
    tested = np.zeros(len(labels), bool)
    known = Labels(labels, sets, tested, head.output_shape[-1])
    fitted = fit_round(views[:1], known, FOLDS, seed=0)
    asked = fitted.know(labels)
    if not asked.any():  # no image can be held out
        fold = np.full(len(labels), FOLDS)
        fitted, asked = replace(fitted, fold=fold), ~asked
    temperature = calibrate_round(
        fitted, views[:1], labels, asked, fit_any_temperature
    )
    start = fitted.heads[-1]
    spread = np.sqrt(variance + normalization.epsilon)
    bias = start.bias + mean @ start.weights
    # A class without an image is as likely as the least likely one.
    bias = np.where(start.known, bias, bias[start.known].min())
    dense = head.get_layer(LOGITS)
    dense.kernel.assign(start.weights * spread[:, None] / temperature)
    dense.bias.assign(bias / temperature)


def join_head(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """One flat model, images (n, H, W, 3) to probabilities (n, classes).

    Its layers are the backbone's own and copies of the head's, whose
    BatchNormalization is frozen like every other one.

    Raises:
        InputError: where the head is not one of `build_head`.
    """
    (features,), (classes,) = head.input_shape[1:], head.output_shape[1:]
    own = build_head(features, classes, dropout=0.0)
    layers = [(layer.name, type(layer)) for layer in head.layers]
    if layers != [(layer.name, type(layer)) for layer in own.layers]:
        names = ", ".join(name for name, _ in layers)
        raise InputError(f"the head has other layers than ours: {names}")
    own.get_layer("head_bn").epsilon = head.get_layer("head_bn").epsilon
    own.get_layer("head_dropout").rate = head.get_layer("head_dropout").rate
    own.set_weights(head.get_weights())
    x = backbone.output
    for layer in own.layers[1:]:
        copy = type(layer).from_config(layer.get_config())
        x = copy(x)
        copy.set_weights(layer.get_weights())
        if isinstance(copy, keras.layers.BatchNormalization):
            copy.trainable = False
    return keras.Model(backbone.input, x, name=f"{backbone.name}_finetuned")


def seed_dropout(model: keras.Model, seed: int) -> None:
    """Seeds every drop layer anew, however the model came about."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            state = rng.integers(2**32, size=2, dtype=np.uint32)
            layer.seed_generator.state.assign(state)
