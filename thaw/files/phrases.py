"""Numbers and lists, in words."""

from collections.abc import Sequence


def format_count(count: int, one: str, more: str | None = None) -> str:
    """As in "1 pair", "2 pairs"."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def list_some(names: Sequence[str], most: int = 20, between: str = ", ") -> str:
    """As in "a, b and 3 more"."""
    shown = between.join(names[:most])
    more = len(names) - most
    return f"{shown} and {more:,} more" if more > 0 else shown


def format_bytes(count: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1000 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.3g} {units[0]}"


def format_seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"
