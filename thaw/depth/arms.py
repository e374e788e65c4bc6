"""What is raced, and for how long."""

# Epochs of a training in each rung of the race. Each has a whole schedule of
# its own: a cosine cut off in its middle compares nothing. After the first rung
# the worse half leaves.
#
# Where validation alone judges, the second rung trains anew, for longer. Where
# folds judge, the first rung is the first fold, and the second one adds the
# other.
EPOCHS = {"validation": (2, 3), "folds": (3, 3)}

# Of the epochs of a training, those in which its rate rises first.
WARMUP = 0.25


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
