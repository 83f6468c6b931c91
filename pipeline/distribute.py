"""Runners: they map a function over shard numbers and know nothing of images."""

import logging
import signal
from collections.abc import Callable, Iterator, Sequence

from distributed import Client, Future, LocalCluster, as_completed

from basics.errors import UserError
from basics.files import digest_json
from pipeline.generate import ShardResult, generate_shard
from pipeline.job import Job


def run_here(job: Job, shards: Sequence[int], on_batch: Callable[[int], None]) -> Iterator[ShardResult]:
    """Make the shards one after the other in this process."""
    for shard in shards:
        yield generate_shard(job, shard, on_batch)


def run_on_workers(job: Job, shards: Sequence[int], scheduler: str | None) -> Iterator[ShardResult]:
    """Make the shards on Dask workers, several at a time; yield results as they come.

    Args:
        job: the run; every worker must see its files under the same paths.
        shards: numbers of the shards.
        scheduler: address of a running scheduler; None starts `job.config.workers` local processes.
    """
    if scheduler is not None:
        with _joined(scheduler) as client:
            yield from _mapped(client, job, shards)
        return
    # No memory limit: Dask would pause or kill a worker whose networks are large, not leaking.
    local = LocalCluster(
        n_workers=job.config.workers,
        threads_per_worker=1,
        memory_limit=None,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )
    with local as cluster, Client(cluster) as client:
        client.run(_ignore_interrupts)
        yield from _mapped(client, job, shards)


def _joined(scheduler: str) -> Client:
    try:
        return Client(scheduler)
    except (OSError, ValueError) as error:
        raise UserError(f"No Dask scheduler answers at {scheduler} ({error}); check --scheduler.") from error


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the one that started the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _mapped(client: Client, job: Job, shards: Sequence[int]) -> Iterator[ShardResult]:
    # The job holds the list of all images: it is sent once a worker, not once a task.
    sent = client.scatter(job, broadcast=True)
    keys = [f"shard-{digest_json(job.identity)[:12]}-{shard:06d}" for shard in shards]
    futures = [
        client.submit(generate_shard, sent, shard, key=key, retries=0) for shard, key in zip(shards, keys, strict=True)
    ]
    for future in as_completed(futures):
        yield _result(future, shards[keys.index(future.key)])


def _result(future: "Future[ShardResult]", shard: int) -> ShardResult:
    try:
        result: ShardResult = future.result()
    except Exception as error:
        # Dask's own: a worker was killed too often, or the scheduler went away.
        return ShardResult(shard=shard, error=f"shard {shard}: its worker was lost ({type(error).__name__}: {error}).")
    return result
