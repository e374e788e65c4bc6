"""How much each class counts in training."""

import numpy as np


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


def weigh_images(labels: np.ndarray, class_weight: str) -> np.ndarray:
    """The weight of each image's class (n,)."""
    weights = weigh_classes(labels, class_weight)
    if weights is None:
        return np.ones(len(labels))
    return np.array([weights[label] for label in labels.tolist()])
