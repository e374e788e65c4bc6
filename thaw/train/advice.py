"""What to try next: a rate, more epochs, or nothing."""

import math
from collections.abc import Sequence

from thaw.train.recipe import Recipe

# A training "hardly began" if its loss stays above this share of guessing's.
# After UNTIL of the epochs a tenth of the cosine's sum is left; if the loss
# falls by more than IMPROVING in that rest, more epochs or a higher rate are
# advised.
CRAWLING = 0.9
UNTIL = 0.7
IMPROVING = 0.02


def advise(
    curves: Sequence[dict], lost: bool, guessing: float, recipe: Recipe
) -> str | None:
    """What the learning curves ask for: another rate, more epochs, or nothing.

    Args:
        curves: a row an epoch.
        lost: whether training ended before its last epoch.
        guessing: the loss of guessing, ln(classes).
        recipe: of that training.
    """
    losses = [row["val_calibrated_loss"] for row in curves]
    rate = f"{recipe.section}.learning_rate"
    if lost or not math.isfinite(losses[-1]):
        return (
            f"training diverged in epoch {len(curves)}, its validation loss "
            f"is {losses[-1]:.3g} (guessing has {guessing:.3g}): "
            f"try {rate}={recipe.learning_rate / 10:g}"
        )
    if losses[-1] > CRAWLING * guessing:
        return (
            f"training hardly began: the validation loss is {losses[-1]:.3g}, "
            f"that of guessing {guessing:.3g}; try {rate}="
            f"{recipe.learning_rate * 10:g}, or check that the images are what "
            "the backbone expects"
        )
    before = losses[int(UNTIL * len(losses)) - 1] if len(losses) > 1 else 0.0
    if losses[-1] < before - IMPROVING:
        return (
            "the validation loss after temperature still fell at the end, from "
            f"{before:.3g} to {losses[-1]:.3g}: try {recipe.section}.epochs="
            f"{2 * recipe.epochs}, or {rate}={2 * recipe.learning_rate:g}"
        )
    return None
