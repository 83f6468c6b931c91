"""The remote-cluster runner: the workers of a running Dask scheduler, checked before they get work."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import dask
from distributed import Client

from basics.compute import available_cores
from basics.differences import differences
from basics.errors import UserError
from basics.paths import is_remote
from basics.progress import counted, say
from pipeline.config import GenerationConfig
from pipeline.dataset.layout import mark_path
from pipeline.job import Job
from pipeline.outcome import ShardResult
from pipeline.runners.dask_runner import SHORT_LOGS, DaskRunner
from pipeline.runners.runner import OnProgress
from pipeline.runners.worker_probe import gather_replies, probe_code, worker_slots
from pipeline.worker import Environment, EnvironmentOf

GPU = "GPU"
"""Dask's usual name for the resource that a worker with a GPU offers."""
_FIRST_WORKER_TIMEOUT = 60.0
"""Seconds to wait for the first worker."""
_MARKS_TIMEOUT = 90.0
"""Seconds until files that another machine wrote are seen here; NFS by default keeps an absence for up to a minute."""


@dataclass(frozen=True)
class RemoteClusterRunner:
    """Makes shards on the workers of a scheduler, whose finished files may be seen here late."""

    runner: DaskRunner
    """The runner on those workers."""

    def results(self, job: Job, shards: Sequence[int], on_progress: OnProgress) -> Iterator[ShardResult]:
        """See `Runner`. Ends when the marks of all finished shards are seen here, or after a time limit."""
        done = []
        for result in self.runner.results(job, shards, on_progress):
            if result.done:
                done.append(result.shard)
            yield result
        _await_marks(job, done)


def _await_marks(job: Job, shards: Sequence[int]) -> None:
    """Wait for marks on file systems such as NFS, which may report from a cache that a file does not exist."""
    folders = [dataset.folder for dataset in job.datasets if not is_remote(dataset.folder)]
    unseen = [mark_path(folder, shard) for folder in folders for shard in shards]
    until = time.monotonic() + _MARKS_TIMEOUT
    while unseen := [path for path in unseen if not path.exists()]:
        if time.monotonic() > until:
            say(
                f"{counted(len(unseen), 'mark')} that workers have written, such as {unseen[0]}, cannot be seen here "
                f"after {_MARKS_TIMEOUT:.0f} s; check that all machines have the same files at this path."
            )
            return
        time.sleep(1)


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """Connect to a running scheduler, and wait for its first worker.

    Raises:
        UserError: no scheduler answers there, or it has no worker.
    """
    # Our own messages report what happens to the connection.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        with dask.config.set(SHORT_LOGS):
            client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise UserError(f"No Dask scheduler answers at {scheduler!r} ({error}); check --scheduler.") from error
    except TypeError as error:
        raise UserError(
            f"The scheduler {scheduler} cannot be joined ({error}); tls:// needs Dask's setting distributed.comm.tls."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_FIRST_WORKER_TIMEOUT)
        except TimeoutError as error:
            raise UserError(
                f"The scheduler at {scheduler} has no worker, also after {_FIRST_WORKER_TIMEOUT:.0f} s; start some "
                f"with `dask worker {scheduler}`."
            ) from error
        say(f"{len(client.nthreads())} workers at {scheduler}; Dask's dashboard: {client.dashboard_link}")
        yield client


def needed_resources(client: Client, config: GenerationConfig) -> dict[str, float]:
    """Return what a worker must offer: a GPU if the run needs one, or may use one and some worker offers it.

    Raises:
        UserError: the run needs a GPU, and no worker offers one; or it names a GPU by its number.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    offered = any(GPU in worker["resources"] for worker in workers)
    if offered and config.device in {"auto", "cuda"}:
        return {GPU: 1}
    if offered and config.device.startswith("cuda"):
        raise UserError(
            f"--device {config.device} is one GPU of one machine; give cuda, with which each worker uses its own."
        )
    if config.device.startswith("cuda"):
        raise UserError(
            f"No worker offers a GPU; start those that have one with `--resources {GPU}=1`, or leave out --device."
        )
    return {}


def require_importable_code(client: Client, resources: Mapping[str, float]) -> None:
    """Check that every worker can import what makes a shard.

    Raises:
        UserError: one cannot, or the workers or the scheduler are lost.
    """
    gather_replies(client, {address: probe_code(client, address) for address in worker_slots(client, resources)})


def threads_per_slot(client: Client, resources: Mapping[str, float]) -> int:
    """Return the computing threads that every worker has for each of its slots.

    Raises:
        UserError: the workers or the scheduler are lost.
    """
    slots = worker_slots(client, resources)
    calls = {
        address: client.submit(available_cores, workers=[address], pure=False, resources=dict(resources))
        for address in slots
    }
    cores = gather_replies(client, calls)
    return min(max(1, number // slots[address]) for address, number in cores.items())


def trial_of(config: GenerationConfig) -> GenerationConfig:
    """Return settings with which this process can load the networks of a run whose arithmetic is the workers'."""
    return replace(config, device="cpu", precision="auto", compiled=False)


def common_environment(
    client: Client, resources: Mapping[str, float], environment_of: EnvironmentOf, config: GenerationConfig
) -> Environment:
    """Return the environment that all workers have in common; this process has the same software and networks.

    Args:
        client: connection to the scheduler.
        resources: what a worker must offer.
        environment_of: returns the environment of the process that it is called in.
        config: the run.

    Raises:
        UserError: the workers differ from each other or from this process, or one cannot load the networks.
    """
    own = environment_of(trial_of(config))
    calls = {
        address: client.submit(environment_of, config, workers=[address], pure=False, resources=dict(resources))
        for address in worker_slots(client, resources)
    }
    replies = gather_replies(client, calls)
    first = next(iter(replies.values()))
    # The hardware is the workers' own: this process may be on a machine without a GPU.
    expected = {**own, "arithmetic": first["arithmetic"]}
    for address, environment in replies.items():
        changed = differences(expected, environment)
        if changed:
            raise UserError(
                f"The worker {address} differs from this process or from the other workers ({'; '.join(changed)}); "
                "give all of them the same software, files and kind of machine."
            )
    return dict(first)
