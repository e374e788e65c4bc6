"""Temperature scaling, and how far confidence is from accuracy.

Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599.
"""

import math

import numpy as np

# Limits of the temperature. Below the lower one, a validation split with hardly
# an error would make every prediction certain.
LIMITS = 0.2, 20.0

# Of discriminants: features that hardly vary within classes give logits of
# thousands.
ANY_LIMITS = 0.01, 1e6

# What an image counts at most: a probability of 1 % for its class. A few
# images, wrong with great confidence, would decide otherwise.
HIGHEST_LOSS = math.log(100)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """What to divide logits by for the least mean negative log probability.

    Args:
        logits: (n, classes), of images that were not trained on.
        labels: (n,) int.

    Returns:
        The temperature; 1, which changes nothing, where no image is
        classified wrong: the least loss would then be at 0.
    """
    if np.all(logits.argmax(axis=1) == labels):
        return 1.0
    return minimize_loss(logits, labels, 0.0, LIMITS)


def fit_any_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """As `fit_temperature`, for logits of any scale, even if all are right.

    Labels count as if one in n + 2 were any class: after Platt, Probabilistic
    Outputs for Support Vector Machines, 1999.

    Args:
        logits: (n, classes).
        labels: (n,) int.
    """
    return minimize_loss(logits, labels, 1 / (len(labels) + 2), ANY_LIMITS)


def minimize_loss(
    logits: np.ndarray,
    labels: np.ndarray,
    smoothing: float,
    limits: tuple[float, float],
) -> float:
    """The temperature of the least mean negative log probability.

    Args:
        logits: (n, classes).
        labels: (n,) int.
        smoothing: share of a label that all known classes have alike.
        limits: of the temperature.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows, logits = np.arange(len(labels)), logits.astype(np.float64)
    possible = np.isfinite(logits)  # minus infinity: of a class that is unknown
    share = smoothing * possible / possible.sum(axis=1, keepdims=True)
    share[rows, labels] += 1 - smoothing

    def measure_loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -np.sum(share * np.where(possible, scaled, 0)) / len(rows)

    found = minimize_scalar(
        measure_loss, bounds=np.log(limits), method="bounded"
    )
    return float(np.exp(found.x))


def score_logits(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and mean negative log probability, as trained and calibrated.

    Args:
        logits: (n, classes), of images that were not trained on.
        labels: (n,) int.

    Returns:
        accuracy, loss, calibrated_loss, and the temperature of the latter,
        which `fit_temperature` fits on these very images.
    """
    from scipy.special import log_softmax

    rows, logits = np.arange(len(labels)), logits.astype(np.float64)
    finite = bool(np.isfinite(logits).all())
    temperature = fit_temperature(logits, labels) if finite else 1.0
    loss, calibrated = (
        float(-log_softmax(x, axis=1)[rows, labels].mean())
        for x in (logits, logits / temperature)
    )
    return {
        "accuracy": float((logits.argmax(axis=1) == labels).mean()),
        "loss": loss,
        "calibrated_loss": calibrated,
        "temperature": temperature,
    }


def measure_losses(
    logits: np.ndarray, labels: np.ndarray, temperature: float
) -> np.ndarray:
    """The negative log probability of each image's class, capped: (n,).

    Args:
        logits: (n, classes).
        labels: (n,) int.
        temperature: that the logits are divided by.
    """
    from scipy.special import log_softmax

    scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    losses = -scaled[np.arange(len(labels)), labels]
    return np.minimum(np.nan_to_num(losses, nan=np.inf), HIGHEST_LOSS)


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, classes) as if their logits had been divided."""
    tiny = np.finfo(np.float32).tiny  # what is 0 stays next to nothing
    logits = np.log(np.maximum(probabilities.astype(np.float64), tiny))
    logits /= temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)
