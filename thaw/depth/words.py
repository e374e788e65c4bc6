"""Depths in words, and the sentence that decides between them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Blocks = int | str

# A depth that was tried: depth, rate, epochs, loss, error, behind,
# behind_error, close (yes, no, or empty where it was not compared), accuracy,
# trainable, seconds (of an epoch, or None), run.
Row = Mapping[str, Any]

YES = {True: "yes", False: "no"}


def name_depth(blocks: Blocks) -> str:
    """For people: "the head alone", "1 block", "all of the network"."""
    names = {"0": "the head alone", "1": "1 block", "all": "all of the network"}
    return names.get(str(blocks), f"{blocks} blocks")


def describe_choice(
    best: Blocks,
    close: Blocks,
    times: float | None = None,
    deepest: bool = False,
) -> str:
    """Which depth is best, and whether a shallower one would do.

    Args:
        best: the depth of least validation loss.
        close: the shallowest within noise of it, or the best itself.
        times: how many times faster an epoch of that one is.
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
        saved = f" and trains {times:.1f} times faster" if times else ""
        return f"{name_depth(best)}; {name_depth(close)} is within noise{saved}"
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
        return "one depth alone; `finetune.blocks=auto` races several"
    compared = [row for row in rows if row["close"]]
    best = compared[0]
    close = min(
        (row for row in compared if row["close"] == "yes"),
        key=lambda row: row["trainable"],
    )
    pair = best["seconds"], close["seconds"]
    sentence = describe_choice(
        best["depth"],
        close["depth"],
        pair[0] / pair[1] if all(pair) else None,
        best["trainable"] == max(row["trainable"] for row in rows),
    )
    rates = {row["rate"] for row in rows} - {None}
    at = f"rate {best['rate']:g}: " if len(rates) > 1 and best["rate"] else ""
    return at + sentence


def parse_race(
    rows: Iterable[Mapping[str, str]], details: Mapping
) -> list[dict[str, Any]]:
    """What the race came to, for people: those that stayed first, then by loss.

    Args:
        rows: of plots/depths.csv.
        details: of the stage; has the seconds of an epoch.

    Returns:
        `Row`s.
    """
    found = [
        {
            "depth": row["blocks"],
            "rate": to_number(row["learning_rate"]),
            "epochs": int(row["epochs"]),
            "loss": float(row["loss"]),
            "error": float(row["loss_error"]),
            "behind": to_number(row["behind"]),
            "behind_error": to_number(row["behind_error"]),
            "close": row["close"],
            "accuracy": float(row["accuracy"]),
            "trainable": int(row["trainable_parameters"]),
            "seconds": details["seconds"].get(row["blocks"]),
            "run": "chosen" if row["chosen"] == YES[True] else "",
        }
        for row in rows
    ]
    return sorted(found, key=lambda row: (row["close"] == "", row["loss"]))


def to_number(text: str) -> float | None:
    return float(text) if text else None
