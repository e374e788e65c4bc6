"""What is raced, and for how long."""

from typing import NamedTuple

# Epochs of each rung of the race. Every training has a whole schedule of its
# own: a cosine cut off in its middle compares nothing. After each rung but the
# last the worse half leaves. docs/depth.md has what they are chosen by.
RUNGS = (2, 3)

# Of the epochs of a training, those in which its rate rises first.
WARMUP = 0.25


class Arm(NamedTuple):
    """A depth in the race: `finetune.blocks`."""

    blocks: int | str

    @property
    def name(self) -> str:
        return str(self.blocks)


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
