"""A linear head in closed form: ridge regression, exact leave-one-out.

Targets are 1 for an image's class and -1 for the others. The penalty and the
temperature are those of the least log loss on images that were left out, with
all their views, copies and group. Hoerl and Kennard, Ridge Regression,
Technometrics 12, 1970; leaving out without fitting again: Cook and Weisberg,
Residuals and Influence in Regression, 1982.

Where there are more rows and columns than `MOST`, the weights are spanned by
`MOST` rows (Williams and Seeger, Using the Nystrom Method to Speed Up Kernel
Machines, 2000). Rows are read block by block: memory does not grow with them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thaw.linear.affine import Affine
from thaw.linear.temperature import fit_any_temperature

# Rows that span the weights, and rows of view 0 that choose the penalty.
MOST = 4096

BLOCK = 1024  # rows that are read at once

# Beside the length of a row, squared, in the mean.
PENALTIES = 10.0 ** np.arange(-3, 1.01, 0.25)

# Of a part's root mean square deviation: no column counts for less.
FAINT = 0.1

EXACT = 1024  # rows of a matrix that is decomposed in float64

# Of the largest eigenvalue: what rounding leaves of 0.
NOTHING = 1e-5


@dataclass(frozen=True)
class Ridge:
    """A fitted head: scores are (x - mean) / scale @ kernel + bias.

    Attributes:
        mean, scale: (columns,) float32, of each column.
        kernel: (columns, classes) float32, of logits: divided by the
            temperature.
        bias: (classes,) float32.
        penalty: that was chosen, of `PENALTIES`.
        held_out: (n, classes) float32, logits of each image by the head that
            it was left out of.
    """

    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    held_out: np.ndarray

    @property
    def affine(self) -> Affine:
        return Affine.scale(self.mean, self.scale, self.kernel, self.bias)

    def score(self, features: np.ndarray, columns: slice) -> np.ndarray:
        """Logits (n, classes) of features (n, all columns), mapped."""
        head = self.affine
        scores = [head.score(x) for _, x in read_rows([features], columns)]
        return np.concatenate(scores)


def read_rows(
    views: Sequence[np.ndarray], columns: slice
) -> Iterator[tuple[slice, np.ndarray]]:
    """Reads views one behind the other: places and rows, float32."""
    start = 0
    for view in views:
        for first in range(0, len(view), BLOCK):
            rows = np.array(view[first : first + BLOCK, columns], np.float32)
            yield slice(start, start + len(rows)), rows
            start += len(rows)


def measure_columns(
    views: Sequence[np.ndarray], columns: slice, widths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and divisor of each column, by which all parts weigh alike.

    Args:
        views: (n, all columns) each.
        columns: of them.
        widths: columns of each part, such as the means of a block's channels.
    """
    count = sum(map(len, views))
    total: np.ndarray = sum(
        rows.sum(axis=0, dtype=np.float64)
        for _, rows in read_rows(views, columns)
    )
    mean = total / count
    square: np.ndarray = sum(
        np.square(rows - mean).sum(axis=0, dtype=np.float64)
        for _, rows in read_rows(views, columns)
    )
    variance = square / count
    part = np.repeat(np.arange(len(widths)), widths)
    of_part = (np.bincount(part, variance) / widths)[part]
    scale = np.sqrt((variance + FAINT**2 * of_part) * np.asarray(widths)[part])
    return (
        mean.astype(np.float32),
        np.where(scale > 0, scale, np.inf).astype(np.float32),
    )


def decompose(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, rising, and eigenvectors of a symmetric matrix.

    In float32 beyond `EXACT` rows: of thousands that halves seconds, and what
    it rounds lies far below any penalty.
    """
    from scipy.linalg import eigh

    if len(matrix) > EXACT:
        matrix = matrix.astype(np.float32)
    values, turn = eigh(
        matrix, driver="evd", overwrite_a=True, check_finite=False
    )
    return values.astype(np.float64), turn


class Problem:
    """What all penalties share: rows in the span of the weights, rotated.

    Args:
        views: (n, all columns) each, of the training images.
        columns, widths: as in `measure_columns`.
        labels: (n,) int.
        classes: how many there are.
        weights: (n,) float, how much each image counts.
        seed: of the rows that span the weights, where there are too many.

    Attributes:
        basis: (columns, rank), whose rows are orthogonal.
        values: (rank,), eigenvalues.
        products: (rank, classes), of rows and targets.
    """

    def __init__(
        self,
        views: Sequence[np.ndarray],
        columns: slice,
        widths: Sequence[int],
        labels: np.ndarray,
        classes: int,
        weights: np.ndarray,
        seed: int = 0,
    ):
        self.views, self.columns = views, columns
        self.labels, self.classes = labels, classes
        self.weights = weights * (len(labels) / weights.sum())
        self.mean, self.scale = measure_columns(views, columns, widths)
        share = np.bincount(labels, self.weights, classes) / len(labels)
        self.middle = 2 * share - 1  # the mean target
        self._centre = self._measure_centre()
        self.basis, values = self._span(np.random.default_rng(seed))
        self.values = self._turn() if values is None else values
        self.products = np.zeros((len(self.values), classes))
        for place, rows in self._read():
            weighted = self._get_weights(place)[:, None] * self._aim(place)
            self.products += (rows @ self.basis).T @ weighted

    def _turn(self) -> np.ndarray:
        """Makes the rows orthogonal in the basis; gives the eigenvalues."""
        products = np.zeros((self.basis.shape[1],) * 2)
        for place, rows in self._read():
            turned = rows @ self.basis
            weight = self._get_weights(place)[:, None].astype(np.float32)
            products += turned.T @ (weight * turned)
        values, turn = decompose(products)
        self.basis = self.basis @ turn.astype(np.float32)
        return np.maximum(values, 0)

    def _get_images(self, place: slice) -> np.ndarray:
        return np.arange(place.start, place.stop) % len(self.labels)

    def _get_weights(self, place: slice) -> np.ndarray:
        return self.weights[self._get_images(place)]

    def _aim(self, place: slice) -> np.ndarray:
        """Targets less their mean (rows, classes)."""
        return self.get_targets(self._get_images(place)) - self.middle

    def get_targets(self, images: np.ndarray) -> np.ndarray:
        return 2 * np.eye(self.classes)[self.labels[images]] - 1

    def scale_rows(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.mean) / self.scale - self._centre

    def _measure_centre(self) -> np.ndarray:
        """The weighted mean of scaled rows: 0 where all count alike."""
        self._centre = np.zeros(len(self.mean), np.float32)
        if np.all(self.weights == self.weights[0]):
            return self._centre
        total = sum(
            self._get_weights(place) @ rows for place, rows in self._read()
        )
        return (total / self.rows).astype(np.float32)

    @property
    def rows(self) -> int:
        return len(self.views) * len(self.labels)

    def _read(self) -> Iterator[tuple[slice, np.ndarray]]:
        for place, rows in read_rows(self.views, self.columns):
            yield place, self.scale_rows(rows)

    def gather(self, images: np.ndarray) -> np.ndarray:
        """Rows of images, in the basis: (views, len(images), rank)."""
        return np.stack(
            [
                self.scale_rows(
                    np.array(view[images, self.columns], np.float32)
                )
                @ self.basis
                for view in self.views
            ]
        )

    def _span(
        self, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """An orthonormal basis of the weights (columns, rank).

        And the eigenvalues, if all rows span it and count alike.
        """
        size = len(self.mean)
        if size <= MOST and size <= self.rows:
            return np.eye(size, dtype=np.float32), None
        chosen = np.arange(self.rows)
        if self.rows > MOST:
            chosen = np.sort(rng.choice(self.rows, MOST, replace=False))
        view, image = np.divmod(chosen, len(self.labels))
        span = np.concatenate(
            [
                np.array(self.views[v][image[view == v], self.columns])
                for v in np.unique(view)
            ]
        )
        span = self.scale_rows(span.astype(np.float32))
        values, turn = decompose((span @ span.T).astype(np.float64))
        kept = values > NOTHING * values[-1]
        turn = turn[:, kept] / np.sqrt(values[kept])
        basis = span.T @ turn.astype(np.float32)
        whole = len(chosen) == self.rows and not self._centre.any()
        return basis, values[kept] if whole else None

    def solve(self, penalty: float) -> np.ndarray:
        """Weights in the basis (rank, classes)."""
        length = self.values.sum() / self.rows  # of a row, squared
        return self.products / (self._damp(penalty, length))[:, None]

    def _damp(self, penalty: float, length: float) -> np.ndarray:
        return self.values + penalty * length * len(self.views)

    def leave_out(
        self,
        sets: list[np.ndarray],
        penalty: float,
        gather: Callable[[np.ndarray], np.ndarray],
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scores of images by the weights that their set was left out of.

        Args:
            sets: (sets, size) int each, images that leave together.
            penalty: of `PENALTIES`.
            gather: `gather`, or what has its rows at hand.

        Yields:
            Images (sets * size,), and their scores in view 0.
        """
        length = self.values.sum() / self.rows
        damped = self._damp(penalty, length)
        # In float32, as the rows are: three times as fast.
        pulls = (1 / np.sqrt(damped)).astype(np.float32)
        weights = self.solve(penalty).astype(np.float32)
        for images in sets:
            count, size = images.shape
            rows = gather(images.ravel())
            rows = rows.reshape(-1, count, size, rows.shape[-1])
            rows = np.moveaxis(rows, 0, 1).reshape(count, -1, rows.shape[-1])
            every = np.tile(images, (1, len(self.views)))
            root = np.sqrt(self.weights[every])[..., None]
            left = self.get_targets(every) - self.middle - rows @ weights
            scaled = rows * pulls * root.astype(np.float32)
            pull = np.eye(every.shape[1]) - scaled @ np.swapaxes(scaled, 1, 2)
            pull -= root @ np.swapaxes(root, 1, 2) / self.rows
            left = np.linalg.solve(pull, root * left) / root
            scores = self.get_targets(every) - left
            yield images.ravel(), scores[:, :size].reshape(-1, self.classes)


def list_sets(
    sets: np.ndarray, images: np.ndarray, most: int
) -> list[np.ndarray]:
    """Sets of one size together: (sets, size) each, few rows at a time.

    Args:
        sets: (n,) int, of all images.
        images: of them.
        most: rows in one of the arrays, at most, but for a set's own.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for image in images:
        members[int(sets[image])].append(int(image))
    by_size: dict[int, list[list[int]]] = defaultdict(list)
    for found in members.values():
        by_size[len(found)].append(found)
    parts = []
    for size, alike in by_size.items():
        step = max(1, most // size)
        parts += [
            np.array(alike[i : i + step]) for i in range(0, len(alike), step)
        ]
    return parts


def fit_ridge(
    views: Sequence[np.ndarray],
    columns: slice,
    widths: Sequence[int],
    labels: np.ndarray,
    sets: np.ndarray,
    classes: int,
    weights: np.ndarray | None = None,
) -> Ridge:
    """Fits a head to the training images.

    Args:
        views: (n, all columns) each, mapped.
        columns: the columns of them to take.
        widths: columns of each part, which weigh alike.
        labels: (n,) int.
        sets: (n,) int, of images that leave together: `find_sets`.
        classes: how many there are.
        weights: (n,), how much each image counts; None: all alike.
    """
    every = np.arange(len(labels))
    problem = Problem(
        views,
        columns,
        widths,
        labels,
        classes,
        np.ones(len(labels)) if weights is None else weights,
    )
    asked = every
    if len(every) > MOST:
        asked = np.sort(np.random.default_rng(1).choice(every, MOST, False))
        asked = np.flatnonzero(np.isin(sets, sets[asked]))
    place = np.zeros(len(labels), int)
    place[asked] = np.arange(len(asked))
    kept = problem.gather(asked)
    known = list_sets(sets, asked, BLOCK)

    def recall(images: np.ndarray) -> np.ndarray:
        return kept[:, place[images]]

    penalty = choose_penalty(problem, known, recall)
    scores = np.empty((len(labels), classes))
    others = list_sets(sets, np.setdiff1d(every, asked), BLOCK)
    for some, gather in ((known, recall), (others, problem.gather)):
        for images, found in problem.leave_out(some, penalty, gather):
            scores[images] = found
    temperature = fit_any_temperature(scores[asked], labels[asked])
    kernel = problem.basis @ problem.solve(penalty)
    bias = problem.middle - problem._centre @ kernel
    return Ridge(
        problem.mean,
        problem.scale,
        (kernel / temperature).astype(np.float32),
        (bias / temperature).astype(np.float32),
        penalty,
        (scores / temperature).astype(np.float32),
    )


def choose_penalty(
    problem: Problem,
    sets: list[np.ndarray],
    gather: Callable[[np.ndarray], np.ndarray],
) -> float:
    """The penalty of the least log loss, after temperature, when left out.

    Every other one is tried first, then the two beside the best.
    """
    losses = np.full(len(PENALTIES), np.inf)

    def measure(number: int) -> None:
        parts = list(problem.leave_out(sets, PENALTIES[number], gather))
        labels = problem.labels[np.concatenate([images for images, _ in parts])]
        scores = np.concatenate([found for _, found in parts])
        losses[number] = measure_loss(scores, labels)

    for number in range(0, len(PENALTIES), 2):
        measure(number)
    best = int(np.argmin(losses))
    for number in {max(best - 1, 0), min(best + 1, len(PENALTIES) - 1)}:
        measure(number)
    return float(PENALTIES[np.argmin(losses)])


def measure_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log probability of the labels, after temperature."""
    from scipy.special import log_softmax

    scaled = log_softmax(scores / fit_any_temperature(scores, labels), axis=1)
    return float(-scaled[np.arange(len(labels)), labels].mean())
