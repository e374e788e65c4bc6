"""Which of several processes, that train together, writes and speaks."""

_rank = 0


def set_rank(rank: int) -> None:
    """Says which of several processes this one is, from 0."""
    global _rank
    _rank = rank


def is_first() -> bool:
    """Whether this process writes and speaks, for all that do the same."""
    return _rank == 0
