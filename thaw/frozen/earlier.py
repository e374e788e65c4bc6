"""Activations that an earlier pass wrote, for rows that are there again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.data.activations import (
    ABOUT,
    get_digests_path,
    leaves_range,
    open_activations,
)
from thaw.data.facts import match_digests
from thaw.files.arrays import open_array
from thaw.files.text import read_json
from thaw.stage.previous import Previous

# Bytes that are copied at once.
CHUNK = 16 * 2**20


@dataclass(frozen=True)
class Earlier:
    """What an earlier pass wrote, and where each row is in there.

    Attributes:
        folder: of its layers.
        places: of each split, (n,) int: the row there, -1 where it has none.
        identity: a digest of all that it wrote.
    """

    folder: Path
    places: Mapping[str, np.ndarray]
    identity: str

    def has(self, wanted: Mapping[Path, str]) -> bool:
        """Whether all of it is there, at least as precise as is wanted.

        Args:
            wanted: path of each array in `folder`, to its dtype.
        """
        return all(
            (self.folder / path).exists()
            and open_array(self.folder / path).dtype.itemsize
            >= np.dtype(dtype).itemsize
            for path, dtype in wanted.items()
        )

    def copy(
        self, layer: str, split: str, view: int, array: np.ndarray
    ) -> bool:
        """Fills the rows that are there.

        Args:
            layer, split, view: of the array.
            array: (n, *shape), which is written.

        Returns:
            Whether a value left the array's range.
        """
        source = open_activations(self.folder, layer, split, view)
        places = self.places[split]
        rows = np.flatnonzero(places >= 0)
        step = max(1, CHUNK // (array[:1].nbytes or 1))
        overflowed = False
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            values = source[places[some]]
            with np.errstate(over="ignore"):
                array[some] = values
            overflowed |= leaves_range(values, array.dtype)
        return overflowed


def find_earlier(
    previous: Previous | None,
    path: str,
    digests: Mapping[str, np.ndarray],
    about: Mapping[str, object],
) -> Earlier | None:
    """What the stage's last run wrote, if the same computed it.

    Args:
        previous: that run.
        path: data/features or data/activations.
        digests: of each split, (n, 2) uint64, of the rows that are wanted.
        about: what must be the same in `ABOUT`.
    """
    if previous is None:
        return None
    folder = previous.folder / path
    found = read_json(folder / ABOUT)
    if any(found.get(key) != value for key, value in about.items()):
        return None
    places = {
        split: match_digests(
            wanted, open_array(get_digests_path(folder, split))
        )
        for split, wanted in digests.items()
    }
    return Earlier(folder, places, previous.identity)
