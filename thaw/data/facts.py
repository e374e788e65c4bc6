"""What is known of each picture beside its pixels: SPLIT/facts.npy."""

import hashlib

import numpy as np

CUT = "it lacks its last bytes"

# In spite of which a file is read; a fact is the index of one.
FLAWS = ("", CUT)

FACTS = np.dtype(
    [
        ("id", "S32"),  # sha256 of the file's bytes
        ("picture", "S16"),  # equal for pictures that are equal
        ("digest", "u8", 2),  # of the pixels as they are kept
        ("flaw", "u1"),  # of the file, an index into `FLAWS`
        # Upright, before resizing, in pixels.
        ("width", "u4"),
        ("height", "u4"),
        # Of the pixels as they are kept, in levels from 0 to 255.
        ("grey", "?"),  # no channel differs from another but by noise
        ("brightness", "f4"),  # mean luma
        ("darkest", "u1"),  # luma that 1 % of the pixels do not exceed
        ("lightest", "u1"),  # luma that 99 % of the pixels do not exceed
        ("sharpness", "f4"),  # variance of the Laplacian over that of luma
    ]
)


def digest_pixels(image: np.ndarray) -> np.ndarray:
    """Equal for equal pixels alone: (2,) uint64, half of their sha256.

    Args:
        image: of any shape, uint8.
    """
    half = hashlib.sha256(image.tobytes()).digest()[:16]
    return np.frombuffer(half, "<u8")


def match_digests(digests: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """Where each picture is among earlier ones: (n,) int, -1 where nowhere.

    Args:
        digests: (n, 2) uint64.
        earlier: (m, 2) uint64.
    """
    order = np.argsort(earlier[:, 0], kind="stable")
    place = np.searchsorted(earlier[order, 0], digests[:, 0])
    place = np.minimum(place, len(earlier) - 1)
    found = order[place]
    equal = (earlier[found] == digests).all(axis=1)
    return np.where(equal, found, -1)
