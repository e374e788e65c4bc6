"""Work done ahead on threads, its results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def count_cores() -> int:
    """Cores that this process may use."""
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int,
    workers: int | None = None,
) -> Iterator[Result]:
    """Maps on threads, at most `ahead` items ahead of the consumer.

    `Executor.map` takes all items at once (`buffersize` from Python 3.14).
    """
    items = iter(items)
    with ThreadPoolExecutor(workers or count_cores()) as pool:
        pending = deque(
            pool.submit(function, item) for item in islice(items, ahead)
        )
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(
                    pool.submit(function, item) for item in islice(items, 1)
                )
                yield result
        finally:
            for future in pending:
                future.cancel()
