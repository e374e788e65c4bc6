"""The order in which rows and their views pass through a frozen network."""

import math
from dataclasses import dataclass

import numpy as np

MOST_ROWS = 256
MOST_BYTES = 64 * 2**20
BATCH = 8  # blocks are multiples of it


@dataclass(frozen=True)
class Order:
    """Blocks of rows, in each of them view after view of all its rows.

    So a block is read, or sent to another machine, once. A position counts
    rows times views, from the split's start.

    Attributes:
        rows: of the split.
        views: of each row.
        block: rows in a block; the last one may have fewer.
    """

    rows: int
    views: int
    block: int

    def __len__(self) -> int:
        return self.rows * self.views

    @property
    def step(self) -> int:
        """Positions in a block."""
        return self.block * self.views

    def get_block(self, position: int) -> tuple[int, int]:
        """Its first row and the one behind its last."""
        first = position // self.step * self.block
        return first, min(first + self.block, self.rows)

    def locate(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and views (stop - start,) at consecutive positions."""
        positions = np.arange(start, stop)
        first = positions // self.step * self.block
        count = np.minimum(self.block, self.rows - first)
        within = positions - first * self.views
        return first + within % count, within // count


def choose_block(input_bytes: int, output_bytes: int, views: int) -> int:
    """Rows in a block: it stays small, with all that is made of it.

    Args:
        input_bytes, output_bytes: of a row and of one of its views.
    """
    fitting = MOST_BYTES // (input_bytes + views * output_bytes)
    rows = min(max(fitting, 1), MOST_ROWS)
    return math.ceil(rows / BATCH) * BATCH
