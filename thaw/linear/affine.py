"""A head as arrays, and what it says of pooled outputs."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from thaw.files.arrays import write_array


@dataclass(frozen=True)
class Affine:
    """Logits (x - mean) @ kernel + bias.

    Attributes:
        mean: (columns,) float32; taken away first, or rounding would tell.
        kernel: (columns, classes) float32.
        bias: (classes,) float32.
    """

    mean: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray

    @classmethod
    def scale(
        cls,
        mean: np.ndarray,
        scale: np.ndarray,
        kernel: np.ndarray,
        bias: np.ndarray,
    ) -> "Affine":
        """Of (x - mean) / scale @ kernel + bias."""
        return cls(mean, (kernel / scale[:, None]).astype(np.float32), bias)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Logits (n, classes) of (n, columns)."""
        centred = features.astype(np.float32) - self.mean
        return centred @ self.kernel + self.bias

    def write(self, folder: Path) -> None:
        for field in fields(self):
            array = getattr(self, field.name).astype(np.float32)
            write_array(folder / f"{field.name}.npy", array)

    @classmethod
    def read(cls, folder: Path) -> "Affine":
        return cls(*(np.load(folder / f"{x.name}.npy") for x in fields(cls)))


def find_probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of logits (n, classes), float32."""
    from scipy.special import softmax

    return softmax(logits.astype(np.float64), axis=1).astype(np.float32)
