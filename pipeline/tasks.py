"""The work on one shard as Dask sends it to a worker, and what comes back from there."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass

from distributed import get_worker

from pipeline.generate import ShardResult
from pipeline.job import Job

TRIES = 3
"""How often a shard is tried whose fault may pass."""
Work = Callable[[Job, int, Callable[[int], None]], ShardResult]
Reached = Callable[[int, int], None]
"""Told a shard and how many of its images are done; less than before if the shard was begun again."""


def counting(reached: Callable[[int], None]) -> Callable[[int], None]:
    """Return what turns "so many more" into "so many"."""
    done = 0

    def more(images: int) -> None:
        nonlocal done
        done += images
        reached(done)

    return more


@dataclass(frozen=True)
class Task:
    """What one shard needs; it travels pickled, as Dask would otherwise look through all of it more than once."""

    part: Job
    shard: int
    topic: str
    """Of the events that tell how far the shard is."""
    work: Work


def work_on(pickled: bytes) -> tuple[str, ShardResult]:
    """Make one shard on a Dask worker.

    How far it is reaches the client through the scheduler's events.

    Args:
        pickled: a `Task`.

    Returns:
        The worker's address, and what is left of the work.
    """
    task: Task = pickle.loads(pickled)  # noqa: S301 (sent by our client, and Dask itself unpickles all that comes)
    worker = get_worker()
    told = counting(lambda done: worker.log_event(task.topic, (task.shard, done)))
    return worker.address, task.work(task.part, task.shard, told)
