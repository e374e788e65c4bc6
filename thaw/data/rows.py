"""Features of all splits, read block by block as if they were one array."""

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK = 2048  # rows


def iterate_blocks(
    arrays: Sequence[np.ndarray],
) -> Iterator[tuple[slice, np.ndarray]]:
    """Reads arrays, one behind the other.

    Args:
        arrays: (n, size) each, mapped.

    Yields:
        A slice of all rows, and these rows (at most `BLOCK`, size).
    """
    offset = 0
    for array in arrays:
        for start in range(0, len(array), BLOCK):
            block = np.array(array[start : start + BLOCK])
            first = offset + start
            yield slice(first, first + len(block)), block
        offset += len(array)


def gather_rows(arrays: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Some of all rows (len(rows), size), in any order."""
    starts = np.cumsum([0, *map(len, arrays)])
    owner = np.searchsorted(starts, rows, side="right") - 1
    out = np.empty((len(rows), arrays[0].shape[1]), arrays[0].dtype)
    for number, array in enumerate(arrays):
        chosen = owner == number
        out[chosen] = array[rows[chosen] - starts[number]]
    return out
