"""Sizes of pictures before they are resized, and what image_size they ask."""

from collections.abc import Iterator
from typing import Any

import numpy as np

# A value of prepare.image_size is proposed if the reason for it holds for this
# share of the pictures.
NEARLY_ALL = 0.95

STEP = 32  # pixels: a backbone halves its input five times
SMALLEST = 128  # that is proposed: ImageNet's weights have seen no smaller ones
WORTHWHILE = 1.25  # times more, or times less


def describe_sizes(
    facts: np.ndarray, image_size: int, own_size: int, fit: str
) -> tuple[str, dict[str, Any]]:
    """Sizes in one sentence, and in numbers.

    A picture is smaller if it has not the detail that there is room for:
    squashed, its longer side is smaller; cropped, its shorter one. It is larger
    if it loses detail: its shorter side is larger.

    Args:
        facts: (n,) of `FACTS`.
        image_size: pixels a side of the prepared images.
        own_size: pixels a side that the backbone is made for.
        fit: "squash" or "crop".

    Returns:
        The sentence, and for the metrics: least, median and most of width and
        height; count and share of the pictures that are smaller, and larger.
    """
    width, height = facts["width"], facts["height"]
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    detail = shorter if fit == "crop" else longer
    smaller, larger = detail < image_size, shorter > image_size
    words = [
        describe_range(width, height),
        describe_share(smaller, f"smaller than {image_size} px")
        or describe_share(larger, f"larger than {image_size} px"),
    ]
    advice = [
        *propose_less(detail, image_size),
        *propose_more(shorter, image_size, own_size),
    ]
    return ": ".join([", ".join(filter(None, words)), *advice]), {
        "width": summarise(width),
        "height": summarise(height),
        "smaller": count_share(smaller.sum(), len(facts)),
        "larger": count_share(larger.sum(), len(facts)),
    }


def describe_range(width: np.ndarray, height: np.ndarray) -> str:
    if np.ptp(width) == np.ptp(height) == 0:
        return f"all {width[0]} x {height[0]} px"
    sides = np.sort([width, height], axis=0)
    shorter, longer = np.median(sides, axis=1)
    return (
        f"{shorter:.0f} x {longer:.0f} px in the median, shorter by longer "
        f"side, {sides.min()} to {sides.max()} px in all"
    )


def describe_share(members: np.ndarray, words: str) -> str:
    """As in "all smaller", "12% smaller"; nothing for less than 1 %."""
    if members.all():
        return f"all {words}"
    percent = int(100 * members.mean())
    return f"{percent}% {words}" if percent else ""


def propose_less(detail: np.ndarray, image_size: int) -> Iterator[str]:
    """Where pictures are enlarged, a size that they are not enlarged to."""
    most = np.quantile(detail, NEARLY_ALL, method="higher")
    enough = max(SMALLEST, STEP * int(np.ceil(most / STEP)))
    if WORTHWHILE * enough <= image_size:
        share = int(100 * np.mean(detail <= enough))
        of = "" if share == 100 else f" of {share}% of them"
        yield f"prepare.image_size={enough} shows as much{of}"


def propose_more(
    shorter: np.ndarray, image_size: int, own_size: int
) -> Iterator[str]:
    """Where pictures lose detail, a size up to the backbone's own."""
    least = np.quantile(shorter, 1 - NEARLY_ALL, method="lower")
    more = min(own_size, STEP * int(least // STEP))
    if more >= WORTHWHILE * image_size:
        yield f"prepare.image_size={more} could show more"


def summarise(values: np.ndarray) -> dict[str, float]:
    return {
        "least": float(values.min()),
        "median": float(np.median(values)),
        "most": float(values.max()),
    }


def count_share(count: int, total: int) -> dict[str, float]:
    """For the metrics, of `total` pictures."""
    return {"count": int(count), "share": float(count / total)}
