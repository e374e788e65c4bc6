"""Heads, and heads joined with a backbone."""

import numpy as np

from thaw.data.efficientnet import LAST, LOGITS, POOLED
from thaw.errors import InputError
from thaw.linear.affine import Affine
from thaw.linear.ridge import Ridge
from thaw.network.backend import keras
from thaw.network.pooling import pool_blocks

# Added to the variance of what a head is trained on by steps, which is small:
# 0.01 to 0.08 in B4. Without it BatchNormalization makes the faintest features
# as loud as all others, and 100 photographs teach the head far less.
EPSILON = 0.1


def build_head(
    features: int, classes: int, dropout: float, epsilon: float = EPSILON
) -> keras.Model:
    """Pooled outputs (n, features) to probabilities (n, classes)."""
    pooled = keras.Input((features,), name=POOLED)
    x = keras.layers.BatchNormalization(epsilon=epsilon, name="head_bn")(pooled)
    x = keras.layers.Dropout(dropout, name="head_dropout")(x)
    x = keras.layers.Dense(classes, name=LOGITS)(x)
    probabilities = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(pooled, probabilities, name="head")


def set_head(
    head: keras.Model, ridge: Ridge, variance: np.ndarray | None = None
) -> None:
    """Gives a head the weights of a ridge regression.

    Args:
        head: from `build_head`.
        ridge: on the same columns.
        variance: (columns,) that BatchNormalization is to divide by; None: what
            the regression divided by.
    """
    normalization, dense = head.get_layer("head_bn"), head.get_layer(LOGITS)
    scale = np.where(np.isfinite(ridge.scale), ridge.scale, 1.0)
    if variance is None:
        variance = scale**2 - normalization.epsilon
    spread = np.sqrt(variance + normalization.epsilon)
    normalization.moving_mean.assign(ridge.mean)
    normalization.moving_variance.assign(variance)
    dense.kernel.assign(ridge.kernel * (spread / scale)[:, None])
    dense.bias.assign(ridge.bias)


def read_affine(model: keras.Model) -> Affine:
    """The head of a model that ends in one, as arrays."""
    normalization = model.get_layer("head_bn")
    gamma, beta, mean, variance = normalization.get_weights()
    scale = np.sqrt(variance + normalization.epsilon) / gamma
    kernel, bias = model.get_layer(LOGITS).get_weights()
    return Affine.scale(mean, scale, kernel, bias + beta @ kernel)


def join_head(
    backbone: keras.Model, head: keras.Model, cut: str | None = None
) -> keras.Model:
    """One flat model, images (n, H, W, 3) to probabilities (n, classes).

    Its layers are the backbone's own and copies of the head's, whose
    BatchNormalization is frozen like every other one.

    Args:
        backbone: from `build_backbone`.
        head: on the pooled outputs of all blocks, or of the last layer.
        cut: as in `pool_blocks`.

    Raises:
        InputError: where the head is not one of `build_head`, or is on
            something else.
    """
    (features,), (classes,) = head.input_shape[1:], head.output_shape[1:]
    own = build_head(features, classes, dropout=0.0)
    layers = [(layer.name, type(layer)) for layer in head.layers]
    if layers != [(layer.name, type(layer)) for layer in own.layers]:
        names = ", ".join(name for name, _ in layers)
        raise InputError(f"the head has other layers than ours: {names}")
    x = backbone.get_layer(LAST).output
    if features != x.shape[-1]:
        x = pool_blocks(backbone, cut)
    if features != x.shape[-1]:
        raise InputError(
            f"the head takes {features} numbers; the backbone gives "
            f"{x.shape[-1]}, or {backbone.output.shape[-1]} in its last layer"
        )
    own.get_layer("head_bn").epsilon = head.get_layer("head_bn").epsilon
    own.get_layer("head_dropout").rate = head.get_layer("head_dropout").rate
    own.set_weights(head.get_weights())
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
