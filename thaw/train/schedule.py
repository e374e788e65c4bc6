"""thaw.train.schedule."""

import numpy as np

from thaw.network.backend import keras


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
