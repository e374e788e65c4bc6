"""Near-duplicates: pictures that are copies of others without being equal.

A copy may be encoded again, resized, squashed, brighter, darker, or cut by up
to 5 % a side. A mirrored or turned one counts as another picture.

A picture is kept as a thumbnail, its fingerprint. An inverted file of short
codes names a few candidates for each; they are aligned and compared in detail.
"""

import hashlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

from thaw.files.threads import count_cores, map_ahead

# OpenCV gets one thread: Thaw calls it from several threads of its own.
cv2.setNumThreads(1)

SIDE = 32  # pixels; 24 are too few to align cropped copies by
FINGERPRINT = (SIDE, SIDE, 3)
BLANK = np.zeros(FINGERPRINT, np.uint8)  # matches nothing
FAINTEST = 0.2  # deviation of detail; a slope has 0.17, photographs 0.24

WAVES = 8  # cosines along an axis; finer ones change with every crop
CODE = WAVES**2 - 1  # values: all of their products but the mean
CELL = 500  # pictures a pivot
SPILL = 3  # cells that a picture is filed in
NEAREST = 8  # candidates of each crop of a picture, itself among them
COSINE = 0.95  # of codes; 99 % of the copies of each kind have more

# Shares cut off left, right, top and bottom: pictures are sought whole and
# cropped, so that the code of a cropped copy is near one of theirs.
CROPS = np.array(
    [[0, 0, 0, 0], [0.035, 0.035, 0.035, 0.035]]
    + [[0.04, 0, 0, 0], [0, 0.04, 0, 0], [0, 0, 0.04, 0], [0, 0, 0, 0.04]]
    + [[x, 0.04 - x, y, 0.04 - y] for x in (0, 0.04) for y in (0, 0.04)]
)

# Of detail: the most alike of 3,781 garments have 0.90, of 2,062 hands 0.94.
SIMILARITY = 0.955
STRONG = 6  # levels of detail that count half
HOPELESS = 0.75  # before alignment; 99 % of the copies have 0.83 and more
STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 15, 1e-3)
STRETCH = 0.1  # of the side: as far as alignment may move a corner

BLOCK = 2**12  # pictures whose candidates are held at once
CHUNK = 2**8  # fingerprints or pairs that a thread works on


def make_fingerprint(image: Image.Image) -> np.ndarray:
    """What `find_duplicates` compares.

    Args:
        image: an RGB picture of any size.

    Returns:
        `FINGERPRINT` uint8: a thumbnail, or `BLANK` if the picture is smaller
        than that or shows next to nothing, so that only equal pixels tell.
    """
    if min(image.size) < SIDE:
        return BLANK
    size = (SIDE, SIDE)
    small = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)
    fingerprint = np.asarray(small)
    faint = extract_detail(fingerprint).std() < FAINTEST
    return BLANK if faint else fingerprint


def find_duplicates(
    fingerprints: np.ndarray, workers: int | None = None
) -> list[tuple[int, int, float]]:
    """Pairs of pictures of which one is a copy of the other.

    Equal fingerprints are paired with the first of them alone, and a picture
    is sought among the `NEAREST` to each crop of it: large sets of look-alikes
    come out connected, not as all of their pairs.

    Args:
        fingerprints: (n, *FINGERPRINT) uint8, possibly mapped from a file.
        workers: threads; the result does not depend on them.

    Returns:
        (i, j, similarity), sorted, i < j, similarity from `SIMILARITY` to 1.
    """
    workers = workers or count_cores()
    rows, found = group_equal(fingerprints)
    index = Index(fingerprints, rows)

    def verify(candidates: np.ndarray) -> dict[tuple[int, int], float]:
        return verify_pairs(fingerprints, candidates)

    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        candidates = cut(index.find_candidates(block, workers))
        for part in map_ahead(verify, candidates, 4 * workers, workers):
            found |= part
    return sorted((i, j, similarity) for (i, j), similarity in found.items())


def pair_up(
    fingerprints: np.ndarray, rows: np.ndarray, others: np.ndarray
) -> list[tuple[int, int, float]]:
    """For each of some pictures, one of some others that it is a copy of.

    Finds pairs that `find_duplicates` leaves out among many look-alikes.

    Args:
        fingerprints: (n, *FINGERPRINT) uint8.
        rows: (m,) int64, pictures to find a partner for.
        others: (k,) int64, among which.

    Returns:
        (row, other, similarity), for those that have one.
    """
    theirs = encode(fingerprints, others, CROPS[:1])[:, 0]
    found = []
    for row, codes in zip(rows, encode(fingerprints, rows, CROPS), strict=True):
        nearest, products = find_nearest(codes, theirs, NEAREST)
        crops, places = np.divmod(
            np.argsort(-products, axis=None, kind="stable"), nearest.shape[1]
        )
        likeliest = zip(crops[:NEAREST], places[:NEAREST], strict=True)
        candidates = [[row, c, others[nearest[c, p]]] for c, p in likeliest]
        similar = verify_pairs(fingerprints, np.array(candidates))
        if similar:
            pair = max(similar, key=similar.__getitem__)
            (other,) = set(pair) - {row}
            found.append((int(row), int(other), similar[pair]))
    return found


def group_equal(
    fingerprints: np.ndarray,
) -> tuple[np.ndarray, dict[tuple[int, int], float]]:
    """Finds equal fingerprints, too many perhaps to search pair by pair.

    Returns:
        The first of each kind but `BLANK`, (distinct,) int64, ascending; and
        their pairs with the others of their kind.
    """
    hashes = np.fromiter(
        map(hash_array, fingerprints), np.uint64, len(fingerprints)
    )
    _, firsts, kinds = np.unique(hashes, return_index=True, return_inverse=True)
    first = firsts[kinds]
    shown = hashes != hash_array(BLANK)
    itself = first == np.arange(len(first))
    later = np.flatnonzero(shown & ~itself)
    pairs = zip(first[later].tolist(), later.tolist(), strict=True)
    return np.flatnonzero(shown & itself), dict.fromkeys(pairs, 1.0)


def hash_array(array: np.ndarray) -> int:
    digest = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def cut(array: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(array), CHUNK):
        yield array[start : start + CHUNK]


# --------------------------------------------------------------- candidates


def encode(
    fingerprints: np.ndarray, rows: np.ndarray, crops: np.ndarray
) -> np.ndarray:
    """Low frequencies of the grey pictures: unit vectors, times 127.

    Whole numbers, whose products float32 adds up exactly in any order: results
    depend on no number of threads.

    Args:
        fingerprints: (n, *FINGERPRINT) uint8.
        rows: (m,), which of them.
        crops: (c, 4), some of `CROPS`.

    Returns:
        (m, c, CODE) int8.
    """
    codes = np.empty((len(rows), len(crops), CODE), np.int8)
    waves = [(make_waves(*crop[2:]), make_waves(*crop[:2]).T) for crop in crops]
    for part, out in zip(cut(rows), cut(codes), strict=True):
        grey = fingerprints[part].mean(axis=3)
        for crop, (down, across) in enumerate(waves):
            code = (down @ grey @ across).reshape(len(part), -1)[:, 1:]
            length = np.linalg.norm(code, axis=1, keepdims=True)
            out[:, crop] = (127 * code / np.maximum(length, 1e-9)).round()
    return codes


def make_waves(before: float, after: float) -> np.ndarray:
    """The DCT-II's first cosines on an axis without two shares of it.

    Returns:
        (WAVES, SIDE), to be multiplied with all pixels of the axis.
    """
    edges = np.clip(np.arange(SIDE + 1) / SIDE, before, 1 - after)
    centres = (edges[1:] + edges[:-1]) / 2
    phases = np.pi * (centres - before) / (1 - before - after)
    waves = np.cos(np.outer(np.arange(WAVES), phases)) * np.diff(edges)
    waves[0] *= np.sqrt(0.5)
    return waves


def find_nearest(
    codes: np.ndarray, others: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each code, the rows of the nearest `others` and their products.

    Args:
        codes: (n, CODE) int8.
        others: (m, CODE) int8.
        count: how many at most, in no particular order.

    Returns:
        Two of (n, min(count, m)).
    """
    count = min(count, len(others))
    nearest = np.empty((len(codes), count), np.int32)
    products = np.empty((len(codes), count), np.float32)
    others = others.astype(np.float32).T
    parts = zip(cut(codes), cut(nearest), cut(products), strict=True)
    for part, rows, values in parts:
        all_products = part.astype(np.float32) @ others
        rows[:] = all_products.argpartition(-count, axis=1)[:, -count:]
        values[:] = np.take_along_axis(all_products, rows, axis=1)
    return nearest, products


class Index:
    """An inverted file: for each of some pivots, the pictures near it, a cell.

    Args:
        fingerprints: (n, *FINGERPRINT) uint8.
        rows: (m,) int64, which of them to file.
    """

    def __init__(self, fingerprints: np.ndarray, rows: np.ndarray):
        self.fingerprints, self.rows = fingerprints, rows
        self.codes = encode(fingerprints, rows, CROPS[:1])[:, 0]
        # Pivots are pictures drawn at random: many where there are many.
        drawn = np.random.default_rng(0).permutation(len(rows))
        self.pivots = self.codes[drawn[: -(-len(rows) // CELL)]]
        self.cells = self.sort_codes(self.codes, SPILL)

    def sort_codes(self, codes: np.ndarray, spill: int) -> list[np.ndarray]:
        """For each cell the rows of its codes; a code is in `spill` of them."""
        cells, _ = find_nearest(codes, self.pivots, spill)
        order = np.argsort(cells, axis=None, kind="stable") // cells.shape[1]
        sizes = np.bincount(cells.ravel(), minlength=len(self.pivots))
        return np.split(order.astype(np.int32), np.cumsum(sizes)[:-1])

    def find_candidates(self, rows: np.ndarray, workers: int) -> np.ndarray:
        """Pairs of one of `rows` and any picture, each pair once.

        Returns:
            (pairs, 3) int64: a picture, the crop of it that is most like the
            other picture, the other picture.
        """
        codes = encode(self.fingerprints, rows, CROPS).reshape(-1, CODE)

        def search(cell: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
            queries, members = cell
            nearest, products = find_nearest(
                codes[queries], self.codes[members], NEAREST
            )
            query, place = np.nonzero(products >= COSINE * 127**2)
            row, crop = np.divmod(queries[query], len(CROPS))
            other = self.rows[members[nearest[query, place]]]
            product = products[query, place].astype(np.int64)
            found = np.stack([rows[row], crop, other, product], axis=1)
            return found[found[:, 0] != found[:, 2]]

        cells = zip(self.sort_codes(codes, 1), self.cells, strict=True)
        parts = map_ahead(search, cells, 4 * workers, workers)
        found = np.concatenate([np.empty((0, 4), np.int64), *parts])
        low, high = np.sort(found[:, [0, 2]], axis=1).T
        best = np.lexsort((-found[:, 3], high, low))
        new = np.diff(low[best], prepend=-1) | np.diff(high[best], prepend=-1)
        return found[best[new != 0], :3]


# ------------------------------------------------------------- verification


def verify_pairs(
    fingerprints: np.ndarray, candidates: np.ndarray
) -> dict[tuple[int, int], float]:
    """Those of (m, 3) candidates that are similar enough."""
    found = {}
    for i, crop, j in candidates.tolist():
        similarity = measure_similarity(
            fingerprints[i], fingerprints[j], CROPS[crop]
        )
        if similarity >= SIMILARITY:
            found[min(i, j), max(i, j)] = round(similarity, 4)
    return found


def measure_similarity(
    picture: np.ndarray, copy: np.ndarray, crop: np.ndarray
) -> float:
    """Correlation of details, -1 to 1, of pictures as well aligned as can be.

    Args:
        picture: `FINGERPRINT` uint8.
        copy: `FINGERPRINT` uint8, roughly a crop of it.
        crop: (4,), the shares that this cuts off.
    """
    left, right, top, bottom = crop
    warp = np.array(
        [
            [1 - left - right, 0, left * SIDE - (left + right) / 2],
            [0, 1 - top - bottom, top * SIDE - (top + bottom) / 2],
        ],
        np.float32,
    )
    similarity = correlate(copy, picture, warp)
    if not HOPELESS < similarity < SIMILARITY:
        return similarity
    # Either way: an alignment that fails one way often succeeds the other way.
    back = cv2.invertAffineTransform(warp)
    return max(
        similarity,
        correlate(copy, picture, align(copy, picture, warp)),
        correlate(picture, copy, align(picture, copy, back)),
    )


def align(fixed: np.ndarray, moved: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """A better affine map, (2, 3), of places in `fixed` to places in `moved`.

    Evangelidis and Psarakis, "Parametric Image Alignment Using Enhanced
    Correlation Coefficient Maximization" (PAMI 2008): whatever scales all
    levels or adds to them changes nothing.
    """
    fixed = cv2.cvtColor(fixed, cv2.COLOR_RGB2GRAY)
    moved = cv2.cvtColor(moved, cv2.COLOR_RGB2GRAY)
    try:
        _, better = cv2.findTransformECC(
            fixed, moved, warp.copy(), cv2.MOTION_AFFINE, STEPS, None, 1
        )
    except cv2.error:  # it diverged
        return warp
    corners = [[x, y, 1] for x in (0, SIDE) for y in (0, SIDE)]
    stretch = np.abs(corners @ (better - np.eye(2, 3)).T).max()
    return better if stretch < STRETCH * SIDE else warp


def correlate(fixed: np.ndarray, moved: np.ndarray, warp: np.ndarray) -> float:
    """Correlation of details where `fixed` and the warped `moved` overlap."""
    size, inverse = (SIDE, SIDE), cv2.WARP_INVERSE_MAP
    covered = cv2.warpAffine(
        np.ones(size, np.uint8), warp, size, flags=cv2.INTER_NEAREST | inverse
    ).astype(bool)
    moved = cv2.warpAffine(
        moved,
        warp,
        size,
        flags=cv2.INTER_LINEAR | inverse,
        borderMode=cv2.BORDER_REPLICATE,
    )
    a, b = extract_detail(fixed)[covered], extract_detail(moved)[covered]
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-9))


def extract_detail(fingerprint: np.ndarray) -> np.ndarray:
    """What is one to two pixels fine, limited to -1 to 1: float32.

    A difference of Gaussians. Without the limit, one straight edge would make
    plain pictures alike, whatever else they show.
    """
    levels = fingerprint.astype(np.float32)
    fine = cv2.GaussianBlur(levels, (3, 3), 0)
    detail = fine - cv2.GaussianBlur(levels, (0, 0), 2)
    return detail / (np.abs(detail) + STRONG)
