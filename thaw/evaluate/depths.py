"""Depths in words, and the sentence that decides between them."""

from collections.abc import Mapping, Sequence
from typing import Any

Blocks = int | str

# A run: depth, rate, epochs, loss, error, behind, behind_error, close (yes or
# no), accuracy, trainable, run.
Row = Mapping[str, Any]

YES = {True: "yes", False: "no"}


def name_depth(blocks: Blocks) -> str:
    """For people: "the head alone", "1 block", "all of the network"."""
    names = {"0": "the head alone", "1": "1 block", "all": "all of the network"}
    return names.get(str(blocks), f"{blocks} blocks")


def describe_choice(best: Blocks, close: Blocks, deepest: bool = False) -> str:
    """Which depth is best, and whether a shallower one would do.

    Args:
        best: the depth of least validation loss.
        close: the shallowest within noise of it, or the best itself.
        deepest: whether the best is the deepest that was tried.
    """
    if str(close) == "0":
        if str(best) == "0":
            return "the head alone is best: thawing gains nothing here"
        return (
            "depth matters little here: the head alone is within noise of "
            f"{name_depth(best)}"
        )
    if str(close) != str(best):
        return f"{name_depth(best)}; {name_depth(close)} is within noise"
    if str(best) == "all":
        return (
            "all is better than any part: the photographs differ in their "
            "early layers (blur, light, colour)"
        )
    deeper = ", and deeper ones were not tried" if deepest else ""
    return f"{name_depth(best)}: no shallower depth is within noise{deeper}"


def decide(rows: Sequence[Row]) -> str:
    """The sentence that names the best, and the shallowest that is as good."""
    if len(rows) == 1:
        return "one run alone; name several to rank them"
    best = rows[0]
    close = min(
        (row for row in rows if row["close"] == "yes"),
        key=lambda row: row["trainable"],
    )
    sentence = describe_choice(
        best["depth"],
        close["depth"],
        best["trainable"] == max(row["trainable"] for row in rows),
    )
    rates = {row["rate"] for row in rows} - {None}
    at = f"rate {best['rate']:g}: " if len(rates) > 1 and best["rate"] else ""
    return at + sentence
