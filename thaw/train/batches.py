"""Batches of activations for training and validation."""

import math
from collections.abc import Iterator, Mapping
from itertools import count

import numpy as np

from thaw.data.dataset import GatherAll
from thaw.data.splits import TRAINED
from thaw.network.backend import keras
from thaw.train.distribution import pick_own_rows


class Batches(keras.utils.PyDataset):
    """One batch for every step of training, or one pass for validation.

    A batch follows from its step alone: all images in each epoch, shuffled
    anew, every image in the next of its views. On several devices it is what
    `distribute_model` takes, with this process's rows of the activations.

    Args:
        gather: the activations of rows and their views.
        labels: (n,) int.
        views: of each image.
        batch_size: rows in a batch; an epoch's last one may be smaller.
        seed: of order and views; None for one pass in order, of view 0.

    Attributes:
        steps: batches in an epoch.
        first_step: the one that training starts with.
    """

    def __init__(
        self,
        gather: GatherAll,
        labels: np.ndarray,
        views: int,
        batch_size: int,
        seed: int | None,
    ):
        super().__init__()
        self.gather, self.labels = gather, labels
        self.views, self.batch_size, self.seed = views, batch_size, seed
        self.steps = math.ceil(len(labels) / batch_size)
        self.first_step = 0
        self._order = -1, np.array([], int)  # of the epoch last asked for
        self._first_view = np.zeros(len(labels), int)
        if seed is not None:
            rng = np.random.default_rng([seed, 0])
            self._first_view = rng.integers(views, size=len(labels))

    @property
    def num_batches(self) -> int | None:
        """None, as Keras has it, where there is no end to them."""
        return self.steps if self.seed is None else None

    def _get_order(self, epoch: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(len(self.labels))
        known, order = self._order
        if known != epoch:
            rng = np.random.default_rng([self.seed, 1, epoch])
            order = rng.permutation(len(self.labels))
            self._order = epoch, order
        return order

    def __getitem__(self, step: int) -> tuple:
        epoch, index = divmod(self.first_step + step, self.steps)
        start = index * self.batch_size
        rows = self._get_order(epoch)[start : start + self.batch_size]
        labels = self.labels[rows]
        spread = keras.distribution.distribution() is not None
        rows = pick_own_rows(rows) if spread else rows
        views = (self._first_view[rows] + epoch) % self.views
        x = keras.tree.map_structure(
            lambda part: part.astype(np.float32), self.gather(rows, views)
        )
        return (labels, *keras.tree.flatten(x)) if spread else x, labels


def open_batches(
    gather: Mapping[str, GatherAll],
    labels: Mapping[str, np.ndarray],
    views: int,
    batch_size: int,
    seed: int,
) -> tuple[Batches, Batches]:
    """Those of train, drawn by `seed`, and those of validation, one view each.

    Args:
        gather, labels: of both splits.
        views: of each training image.
        batch_size: rows in a batch.
        seed: of order and views.
    """
    train, validation = TRAINED
    return (
        Batches(gather[train], labels[train], views, batch_size, seed),
        Batches(gather[validation], labels[validation], 1, batch_size, None),
    )


def feed(batches: Batches):
    """What Keras takes: on TensorFlow a dataset that tunes nothing.

    A `PyDataset` becomes one whose tuning thread wakes after 10 ms, 30 ms,
    70 ms and so on, and holds up the end of a pass until it next does: by up
    to as long as the pass took.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow

    def draw() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        total = batches.num_batches
        steps = count() if total is None else range(total)
        return map(batches.__getitem__, steps)

    signature = keras.tree.map_structure(
        lambda x: tensorflow.TensorSpec((None, *x.shape[1:]), x.dtype),
        batches[0],
    )
    length = batches.num_batches or tensorflow.data.INFINITE_CARDINALITY
    options = tensorflow.data.Options()
    options.autotune.enabled = False
    return (
        tensorflow.data.Dataset.from_generator(draw, output_signature=signature)
        .apply(tensorflow.data.experimental.assert_cardinality(length))
        .prefetch(2)
        .with_options(options)
    )
