"""Linear discriminants from sums over rows.

The sums of a fold are taken from those of all rows, so that one reading of the
features serves the models of every fold. scikit-learn's
LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...) gives the same models,
but reads all rows for each of them.
"""

from dataclasses import dataclass

import numpy as np

# Share of the correlations between features that is taken away. docs/labels.md
# has what was measured.
SHRINKAGE = 0.5

# Of a variance, beside the square of its feature: what rounding leaves of 0.
NOTHING = 1e-12


@dataclass
class Moments:
    """What discriminants are made of. They add up over rows.

    Attributes:
        counts: (classes,), rows of each class.
        sums: (classes, size), of the features of each class.
        products: (size, size), the sum of each row's outer product.
    """

    counts: np.ndarray
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def zero(cls, classes: int, size: int) -> "Moments":
        return cls(
            np.zeros(classes),
            np.zeros((classes, size)),
            np.zeros((size, size)),
        )

    def add(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Adds rows.

        Args:
            features: (n, size), summed in float64.
            labels: (n,) int.
        """
        from scipy.sparse import csr_array

        features = features.astype(np.float64)
        ends = labels, np.arange(len(labels))
        shape = len(self.counts), len(labels)
        members = csr_array((np.ones(len(labels)), ends), shape=shape)
        self.counts += np.bincount(labels, minlength=len(self.counts))
        self.sums += members @ features
        self.products += features.T @ features

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.counts + other.counts,
            self.sums + other.sums,
            self.products + other.products,
        )

    def __sub__(self, other: "Moments") -> "Moments":
        """Those of the rows that the other has not."""
        return Moments(
            self.counts - other.counts,
            self.sums - other.sums,
            self.products - other.products,
        )


@dataclass(frozen=True)
class Discriminant:
    """A linear model of classes.

    Attributes:
        weights: (size, classes).
        bias: (classes,); minus infinity for a class that no row had.
    """

    weights: np.ndarray
    bias: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """(classes,) bool: whether a row had the class."""
        return np.isfinite(self.bias)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Logits (n, classes) of features (n, size)."""
        return features @ self.weights + self.bias


def fit_discriminant(moments: Moments) -> Discriminant:
    """Linear discriminants; the correlations within classes are shrunken.

    The covariance within classes, pooled, is shrunken towards its diagonal: by
    Friedman, Regularized Discriminant Analysis, JASA 84, 1989.

    Args:
        moments: of the rows to fit to.
    """
    from scipy.linalg import solve

    counts, total = moments.counts, max(moments.counts.sum(), 1)
    means = moments.sums / np.maximum(counts, 1)[:, None]
    within = (moments.products - moments.sums.T @ means) / total
    square = np.diag(moments.products) / total
    varies = np.diag(within) > NOTHING * square
    spread = np.sqrt(np.where(varies, np.diag(within), 1))
    within *= (1 - SHRINKAGE) / spread / spread[:, None]
    np.fill_diagonal(within, 1)
    scaled = means / spread
    weights = solve(within, scaled.T, assume_a="pos", overwrite_a=True)
    with np.errstate(divide="ignore"):
        prior = np.log(counts / total)
    bias = prior - 0.5 * np.einsum("ks,sk->k", scaled, weights)
    return Discriminant(weights / spread[:, None], bias)
