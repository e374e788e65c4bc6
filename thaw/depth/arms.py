"""What is raced, and for how long."""

import math

# Epochs of a training in each rung of the race, at least. Each has a whole
# schedule of its own: a cosine cut off in its middle compares nothing. After
# the first rung the worse half leaves.
#
# Where validation alone judges, the second rung trains anew, for longer. Where
# folds judge, the first rung is the first fold, and the second one adds the
# other.
EPOCHS = {"validation": (2, 3), "folds": (3, 3)}

# Of a training, at least. After fewer the head alone, which is trained, looks
# best: on sign digits, after 52 by the whole rate, and it is 8 points of
# accuracy behind.
STEPS = 64

# Of the epochs of a training, those in which its rate rises first.
WARMUP = 0.25

# A training has finetune.learning_rate over this: few steps do not make up for
# what a large rate breaks at first. Three epochs of 16 blocks of B4 on sign
# digits come to a loss of 0.37 by the rate itself and 0.10 by a third of it.
SLOWER = 3


def count_epochs(folds: int, rows: int, batch_size: int) -> tuple[int, int]:
    """Epochs of a training in each rung.

    Args:
        folds: 1 where validation alone judges.
        rows: images that train.
        batch_size: of them.
    """
    first, last = EPOCHS["folds" if folds > 1 else "validation"]
    least = math.ceil(STEPS / math.ceil(rows / batch_size))
    return max(first, least), max(last, least)


def list_depths(total: int, deepest: str) -> list[int | str]:
    """Doubled depths: 0, the head alone, 1, 2, 4, ... up to half.

    Args:
        total: blocks of the backbone.
        deepest: "half" or "all"; with "all", depths beyond half and all of
            the network as well.
    """
    depths: list[int | str] = [0]
    blocks = 1
    while blocks <= (total // 2 if deepest == "half" else total - 1):
        depths.append(blocks)
        blocks *= 2
    return [*depths, "all"] if deepest == "all" else depths


def keep_better(count: int) -> int:
    """How many of so many trainings stay after a rung: two at least."""
    return max(count // 2, 2)
