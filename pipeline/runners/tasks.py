"""The work on one shard as Dask sends it to a worker, and what comes back from there."""

import logging
import pickle
from collections.abc import Callable
from typing import NamedTuple

from distributed import get_worker

from pipeline.job import Job
from pipeline.outcome import Outcome, ShardResult

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


def work_on(shard: int, topic: str, pickled: bytes) -> bytes:
    """Make one shard on a Dask worker.

    How far it is, and what came of it, reaches the client through the scheduler's events: so nothing is lost with a
    worker that goes right after its work.

    Args:
        shard: number of the shard.
        topic: of the events.
        pickled: what the shard needs of its `Job`, and the `Work`; as bytes, because Dask would otherwise look through
            all of it more than once.

    Returns:
        A pickled `Made`, for a client that did not hear the event.
    """
    worker = get_worker()
    told = counting(lambda done: worker.log_event(topic, (shard, done)))
    try:
        part, work = pickle.loads(pickled)  # noqa: S301 (sent by our client, and Dask itself unpickles all that comes)
        result: ShardResult = work(part, shard, told)
    except Exception as error:
        # A worker whose device or installation is broken would fail at all that it is given, and be free for more.
        logging.getLogger("distributed.worker").exception("Shard %d", shard)
        fault = f"shard {shard}: {type(error).__name__}: {error}"
        result = ShardResult(shard=shard, outcome=Outcome.TRANSIENT, reason=fault)
    made = pickle.dumps(Made(str(worker.get_current_task()), worker.address, result))
    worker.log_event(topic, made)
    return made
