"""The work on one shard as Dask sends it to a worker, and what comes back from there."""

import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

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


class Made(NamedTuple):
    """What came of a task."""

    key: str
    worker: str
    """Address of the worker that made it."""
    result: ShardResult


@dataclass(frozen=True)
class Task:
    """What one shard needs; it travels pickled, as Dask would otherwise look through all of it more than once."""

    key: str
    part: Job
    shard: int
    topic: str
    """Of the events that tell how far the shard is, and what came of it."""
    work: Work


def work_on(pickled: bytes) -> bytes:
    """Make one shard on a Dask worker.

    How far it is, and what came of it, reaches the client through the scheduler's events: so nothing is lost with a
    worker that goes right after its work.

    Args:
        pickled: a `Task`.

    Returns:
        A pickled `Made`, for a client that did not hear the event.
    """
    task: Task = pickle.loads(pickled)  # noqa: S301 (sent by our client, and Dask itself unpickles all that comes)
    worker = get_worker()
    told = counting(lambda done: worker.log_event(task.topic, (task.shard, done)))
    try:
        result = task.work(task.part, task.shard, told)
    except Exception as error:
        # A worker whose device is broken would fail at all that it is given, and be free for more at once.
        logging.getLogger("distributed.worker").exception("Shard %d", task.shard)
        fault = f"shard {task.shard}: {type(error).__name__}: {error}"
        result = ShardResult(shard=task.shard, error=fault, passing=True)
    made = pickle.dumps(Made(task.key, worker.address, result))
    worker.log_event(task.topic, made)
    return made
