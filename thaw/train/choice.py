"""Which weights a training leaves: those of its last epoch, or of its start.

The rate has fallen to 0 by the last epoch, and on real features no score of
validation picks an epoch that is better on average: docs/claims.md.
"""

import math
from collections.abc import Mapping

SHIPPED_HEAD = (
    "fine-tuning did not beat the head alone on validation, so that is shipped"
)

# Of 157 trainings for docs/claims.md none that went further than this came to
# what a lower rate came to. Of all others none went further than 0.59.
FORGOTTEN = 0.75


def is_better(scores: Mapping[str, float], start: Mapping[str, float]) -> bool:
    """By validation accuracy; where it is equal, by the calibrated loss.

    The loss alone would mislead: far from ImageNet, fine-tuning gains accuracy
    while its few wrong predictions grow more certain.

    Args:
        scores, start: of the last epoch and of the start, by `score_logits`.
    """
    keys = [(x["accuracy"], -x["calibrated_loss"]) for x in (scores, start)]
    return keys[0] > keys[1]


def limit_loss(start: Mapping[str, float] | None, classes: int) -> float:
    """The calibrated validation loss beyond which a training is lost.

    `FORGOTTEN` of the way from that of the start to that of guessing,
    ln(classes): where classes differ in size, a training that knows nothing but
    them stays below guessing. A random start, or one beyond guessing, may come
    down yet.
    """
    guessing = math.log(classes)
    if not start or start["calibrated_loss"] > guessing:
        return math.inf
    known = start["calibrated_loss"]
    return known + FORGOTTEN * (guessing - known)
