"""Two models on the same images: is one of them better?"""

import math
from dataclasses import dataclass

import numpy as np

from thaw.files.phrases import format_count

# Of a verdict, and of its interval: 99 %. Another seed moves the accuracy too,
# which a test over images does not see: at 0.05 one pair in ten of seeds 1 to 5
# would differ on the default data, at 0.01 none.
SIGNIFICANCE = 0.01

# In place of a verdict, where no epoch of fine-tuning was kept: both models are
# the head alone then, and nothing is compared with itself.
HEAD_SHIPPED = "head shipped"


@dataclass(frozen=True)
class Comparison:
    """Hits of two models on the same images, paired.

    Attributes:
        n: images.
        before, after: images that each model classifies right.
        lost, gained: images that only the first, only the second does.
        low, high: 99 % interval of the difference of the accuracies.
        p_value: exact McNemar test of no difference.
    """

    n: int
    before: int
    after: int
    lost: int
    gained: int
    low: float
    high: float
    p_value: float

    @property
    def difference(self) -> float:
        return (self.after - self.before) / self.n

    def judge(self, p_value: float | None = None) -> str:
        """Better, worse or within noise.

        Args:
            p_value: one that takes into account how many comparisons were
                made; None: this one's own.
        """
        if (self.p_value if p_value is None else p_value) >= SIGNIFICANCE:
            return "within noise"
        return "better" if self.gained > self.lost else "worse"

    def describe(self) -> str:
        return (
            f"{self.judge()}, {self.difference:+.3f}, 99 % interval "
            f"{self.low:+.3f} to {self.high:+.3f}; of "
            f"{format_count(self.n, 'image')} {self.gained:,} right only "
            f"after it, {self.lost:,} only before; exact McNemar test, "
            f"p = {self.p_value:.2g}"
        )


def judge_gain(gain: Comparison, shipped: str) -> dict[str, float | str]:
    """What fine-tuning gained, for the details of `evaluate`.

    Args:
        gain: from the head alone to what is shipped.
        shipped: finetuned or head, as `finetune` says.
    """
    if shipped == "head":
        return {"gain": gain.difference, "gain_verdict": HEAD_SHIPPED}
    return {
        "gain": gain.difference,
        "gain_ci_low": gain.low,
        "gain_ci_high": gain.high,
        "gain_p_value": gain.p_value,
        "gain_verdict": gain.judge(),
    }


def compare_hits(before: np.ndarray, after: np.ndarray) -> Comparison:
    """Compares (n,) bool with (n,) bool, the same images in the same order."""
    from scipy.stats import binomtest

    lost = int((before & ~after).sum())
    gained = int((after & ~before).sum())
    changed = lost + gained
    low, high = measure_interval(before, after)
    return Comparison(
        n=len(before),
        before=int(before.sum()),
        after=int(after.sum()),
        lost=lost,
        gained=gained,
        low=low,
        high=high,
        p_value=float(binomtest(gained, changed).pvalue) if changed else 1.0,
    )


def measure_interval(
    before: np.ndarray,
    after: np.ndarray,
    confidence: float = 1 - SIGNIFICANCE,
) -> tuple[float, float]:
    """An interval of the difference of two paired proportions.

    Method 10 of Newcombe, Improved confidence intervals for the difference
    between binomial proportions based on paired data, Statistics in Medicine
    17 (1998): from the Wilson interval of each, with their correlation.

    Args:
        before, after: (n,) bool.
        confidence: how often it holds the true difference.

    Returns:
        Lowest and highest of mean(after) - mean(before).
    """
    from scipy.stats import binomtest

    n = len(before)
    (p1, l1, u1), (p2, l2, u2) = (
        (
            hits.mean(),
            *binomtest(int(hits.sum()), n).proportion_ci(confidence, "wilson"),
        )
        for hits in (after, before)
    )
    both, neither = int((after & before).sum()), int((~after & ~before).sum())
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    margins = math.prod(
        (both + gained, lost + neither, both + lost, gained + neither)
    )
    product = float(both * neither - gained * lost)
    if product > n / 2:  # the continuity correction of the method
        product -= n / 2
    elif product >= 0:
        product = 0
    phi = product / math.sqrt(margins) if margins else 0.0
    below = (p1 - l1) ** 2 + (u2 - p2) ** 2
    below -= 2 * phi * (p1 - l1) * (u2 - p2)
    above = (u1 - p1) ** 2 + (p2 - l2) ** 2
    above -= 2 * phi * (u1 - p1) * (p2 - l2)
    difference = p1 - p2
    return (
        float(difference - math.sqrt(max(below, 0))),
        float(difference + math.sqrt(max(above, 0))),
    )
