"""Pictures that belong together."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def find_sets(index: Iterable[Mapping[str, str]]) -> np.ndarray:
    """Numbers sets of pictures that are of one group, or copies.

    Args:
        index: n rows of `Dataset.read_index`.

    Returns:
        (n,) int, the set of each picture.
    """
    rows = list(index)
    keys = ([row[key] for row in rows] for key in ("group", "copies"))
    return join_pictures(*keys)


def join_pictures(*keys: Sequence[str]) -> np.ndarray:
    """Numbers sets of pictures that share a key, at once or by way of others.

    Args:
        keys: of each kind, such as groups and copies, a text for each of n
            pictures; empty where a picture has none.

    Returns:
        (n,) int, the set of each picture.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = nodes = len(keys[0])
    pictures, shared = [], []
    for kind in keys:
        numbers: dict[str, int] = {}
        for picture, text in enumerate(kind):
            if text:
                pictures.append(picture)
                shared.append(nodes + numbers.setdefault(text, len(numbers)))
        nodes += len(numbers)
    graph = coo_array(
        (np.ones(len(shared)), (pictures, shared)), shape=(nodes, nodes)
    )
    return connected_components(graph, directed=False)[1][:count]
