"""What a runner is: it maps the function that makes one shard over shard numbers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from pipeline.job import Job
from pipeline.outcome import ShardResult

MAX_ATTEMPTS = 3
"""Attempts at a shard whose fault is transient or of one machine only."""
ShardFunction = Callable[[Job, int, Callable[[int], None]], ShardResult]
"""Makes the shard of a number; calls back with the number of images of each finished batch. Picklable."""
OnProgress = Callable[[int, int], None]
"""Called with a shard and how many of its images are done; fewer than before if the shard was begun again."""


class Runner(Protocol):
    """What makes shards."""

    def results(self, job: Job, shards: Sequence[int], on_progress: OnProgress) -> Iterator[ShardResult]:
        """Make shards; yield the result of each, in the order in which they end."""
        ...


def running_total(on_total: Callable[[int], None]) -> Callable[[int], None]:
    """Return a function that adds up the counts it is called with, and calls `on_total` with each sum so far."""
    total = 0

    def add(count: int) -> None:
        nonlocal total
        total += count
        on_total(total)

    return add
