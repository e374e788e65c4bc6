"""The order in which rows and their views pass through a frozen network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MOST_ROWS = 256
MOST_BYTES = 64 * 2**20
BATCH = 8  # blocks are multiples of it


@dataclass(frozen=True)
class Order:
    """The order of one split: blocks of rows, and in a block view after view.

    So a block is read, or sent to another machine, once. A position counts
    views of rows, from the split's start: there are rows times views.

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
        """Start and stop of the rows of the block at a position."""
        first = position // self.step * self.block
        return first, min(first + self.block, self.rows)

    def locate(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and view numbers at consecutive positions (stop - start,)."""
        positions = np.arange(start, stop)
        first = positions // self.step * self.block
        count = np.minimum(self.block, self.rows - first)
        within = positions - first * self.views
        return first + within % count, within // count


def choose_block(input_bytes: int, output_bytes: int, views: int) -> int:
    """Rows in a block: few enough for their inputs and outputs to be small.

    Args:
        input_bytes: of a row.
        output_bytes: of a view of a row.
        views: of each row.
    """
    fitting = MOST_BYTES // (input_bytes + views * output_bytes)
    rows = min(max(fitting, 1), MOST_ROWS)
    return math.ceil(rows / BATCH) * BATCH


def count_before(orders: Mapping[str, Order], split: str) -> int:
    """Positions of the splits that pass before one."""
    before = list(orders)[: list(orders).index(split)]
    return sum(len(orders[name]) for name in before)


def find_starts(
    orders: Mapping[str, Order], done: int, whole_blocks: bool
) -> dict[str, int]:
    """The position in each split that a pass goes on at.

    Args:
        orders: of the splits, as they pass.
        done: positions that have passed, of all splits together.
        whole_blocks: whether a block that is not finished passes again.
    """
    starts = {}
    for split, order in orders.items():
        start = min(max(done - count_before(orders, split), 0), len(order))
        if whole_blocks and start < len(order):
            start -= start % order.step
        starts[split] = start
    return starts
