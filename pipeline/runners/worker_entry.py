"""What Dask calls on a worker for each shard, and the result that comes back from there."""

import logging
import pickle
from typing import NamedTuple

from distributed import get_worker

from pipeline.outcome import Outcome, ShardResult
from pipeline.runners.runner import running_total


class AttemptResult(NamedTuple):
    """How an attempt at a shard on a worker ended."""

    key: str
    """Dask's key of the attempt."""
    worker: str
    """Address of the worker."""
    result: ShardResult


def run_on_worker(shard: int, topic: str, pickled: bytes) -> bytes:
    """Make one shard on a Dask worker.

    Progress and result reach the client through the scheduler's events, so that nothing is lost with a worker that
    dies right after its work.

    Args:
        shard: number of the shard.
        topic: name of the topic that the events are logged under.
        pickled: the part of the `Job` that the shard needs, and the `ShardFunction`; as bytes, because Dask would
            otherwise look through all of it more than once.

    Returns:
        A pickled `AttemptResult`, for a client that did not receive the event.
    """
    worker = get_worker()
    on_batch = running_total(lambda images: worker.log_event(topic, (shard, images)))
    try:
        part, make = pickle.loads(pickled)  # noqa: S301 (sent by our client, and Dask itself unpickles all that comes)
        result: ShardResult = make(part, shard, on_batch)
    except Exception as error:
        # A worker whose device or installation is broken would fail at every shard it gets, and be free for more.
        logging.getLogger("distributed.worker").exception("Shard %d", shard)
        reason = f"shard {shard}: {type(error).__name__}: {error}"
        result = ShardResult(shard=shard, outcome=Outcome.TRANSIENT, reason=reason)
    pickled_result = pickle.dumps(AttemptResult(str(worker.get_current_task()), worker.address, result))
    worker.log_event(topic, pickled_result)
    return pickled_result
