"""Batches of activations for training, validation and evaluation."""

import math

import numpy as np

from thaw.backend import keras
from thaw.features import Gather


class Batches(keras.utils.PyDataset):
    """Shuffled batches; an image shows another view in every epoch.

    Args:
        gather: the activations of rows and their views.
        labels: (n,) int.
        views: of each image.
        batch_size: rows in a batch; the last one may be smaller.
        seed: of order and views; None keeps the order and view 0.
    """

    def __init__(
        self,
        gather: Gather,
        labels: np.ndarray,
        views: int,
        batch_size: int,
        seed: int | None,
    ):
        super().__init__()
        self.gather, self.labels = gather, labels
        self.views, self.batch_size, self.seed = views, batch_size, seed
        self.epoch = 0
        self.order = np.arange(len(labels))
        self.first_view = np.zeros(len(labels), int)
        if seed is not None:
            rng = np.random.default_rng([seed, 0])
            self.first_view = rng.integers(views, size=len(labels))
            self._shuffle()

    def _shuffle(self) -> None:
        rng = np.random.default_rng([self.seed, 1, self.epoch])
        self.order = rng.permutation(len(self.labels))

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        start = index * self.batch_size
        rows = self.order[start : start + self.batch_size]
        views = (self.first_view[rows] + self.epoch) % self.views
        return self.gather(rows, views).astype(np.float32), self.labels[rows]

    def on_epoch_end(self) -> None:
        self.epoch += 1
        if self.seed is not None:
            self._shuffle()
