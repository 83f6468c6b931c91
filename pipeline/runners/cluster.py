"""Dask schedulers and workers: starting them here or joining them, and asking whether they can do the work."""

import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import dask
import torch
from distributed import Client, Nanny, Scheduler, SpecCluster, WorkerPlugin

from basics.differences import differences
from basics.errors import UserError
from basics.paths import is_remote
from basics.progress import say
from pipeline.config import GenerationConfig, available_cores
from pipeline.dataset.layout import stats_path
from pipeline.job import Facts, FactsOf, Job, load_networks
from pipeline.outcome import ShardResult
from pipeline.replay import load_renderer
from pipeline.runners.distributed import Distributed
from pipeline.runners.serial import Here, Runner
from pipeline.runners.tasks import Reached
from pipeline.runners.worker_probe import able_workers, answers, asked_for_code

GPU = "GPU"
"""Dask's usual name for the resource that a worker with a GPU offers."""
SHORT_LOGS = {"distributed.admin.low-level-log-length": 10}
"""Dask's configuration: otherwise each connection keeps its last thousand messages, with the images' names in them."""
_TTL = "distributed.scheduler.worker-ttl"
_GIVE_UP = "distributed.deploy.lost-worker-timeout"
"""After which Dask starts a worker of its own no more, if it happens to be between two deaths at that moment."""
_DEFAULT_TTL, _LOCAL_TTL = "5 minutes", "1 minute"
_ARRIVAL = 60.0
"""Seconds to wait for the first worker."""
_LATE = 90.0
"""Seconds until what another machine wrote is seen here; NFS asks again after a minute unless it is told otherwise."""
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Workers:
    """What will do the work of a run."""

    runner: Runner
    config: GenerationConfig
    """The run's settings, with everything that the workers decide."""
    client: Client | None = None
    """Connection to workers that are not of this machine; they have to be asked what they are."""
    resources: dict[str, float] = field(default_factory=dict)

    @property
    def elsewhere(self) -> bool:
        """Whether they are not of this machine."""
        return self.client is not None

    def facts(self, facts_of: FactsOf, config: GenerationConfig) -> Facts:
        """Return what the workers have in common, software and networks of this process included.

        Args:
            facts_of: tells the facts of the process that it is called in.
            config: the run.

        Raises:
            UserError: they differ from each other or from this process, or one cannot load the networks.
        """
        if self.client is None:
            return facts_of(config)
        own = facts_of(replace(config, device="cpu", precision="auto"))
        asked = {
            address: self.client.submit(
                _afresh, facts_of, config, workers=[address], pure=False, resources=self.resources
            )
            for address in able_workers(self.client, self.resources)
        }
        told = answers(self.client, asked)
        first = next(iter(told.values()))
        expected = {**own, "arithmetic": first["arithmetic"]}
        for address, facts in told.items():
            changed = differences(expected, facts)
            if changed:
                raise UserError(
                    f"The worker {address} differs from this process or from the other workers ({'; '.join(changed)}); "
                    "give all of them the same software, files and kind of machine."
                )
        return dict(first)


def _afresh(facts_of: FactsOf, config: GenerationConfig) -> Facts:
    """Tell a worker's facts from the files as they are now: it may have loaded others of the same names before."""
    load_networks.cache_clear()
    load_renderer.cache_clear()
    return facts_of(config)


@contextmanager
def workers_for(config: GenerationConfig, scheduler: str | None) -> Iterator[Workers]:
    """Lend what works on a run: this process, processes of this machine, or those of a running scheduler.

    Args:
        config: the run; `workers` 0 means this process.
        scheduler: address of a running Dask scheduler, in the place of `workers`.

    Raises:
        UserError: both were asked for, no scheduler answers there, it has no worker, or none with a GPU although the
            run asks for one.
    """
    if scheduler is not None and config.workers:
        raise UserError("Workers of this machine and a scheduler's cannot be used together; give one of the two.")
    if scheduler is not None:
        with _joined(scheduler) as client:
            resources = _resources(client, config)
            answers(client, {address: asked_for_code(client, address) for address in able_workers(client, resources)})
            settled = replace(config, threads=config.threads or _threads_each(client, resources))
            yield Workers(OtherMachines(Distributed(client, resources)), settled, client, resources)
    elif config.workers:
        yield Workers(LocalProcesses(config), replace(config, threads=config.threads_each()))
    else:
        yield Workers(Here(), config)


@dataclass(frozen=True)
class LocalProcesses:
    """Makes shards in `config.workers` processes of this machine, which live as long as there is work."""

    config: GenerationConfig

    def results(self, job: Job, shards: Sequence[int], reached: Reached) -> Iterator[ShardResult]:
        """See `Runner`."""
        with _started(self.config) as client:
            yield from Distributed(client, patience=_ARRIVAL).results(job, shards, reached)


@dataclass(frozen=True)
class OtherMachines:
    """Makes shards on the workers of a scheduler, whose finished files may appear here late."""

    workers: Distributed

    def results(self, job: Job, shards: Sequence[int], reached: Reached) -> Iterator[ShardResult]:
        """See `Runner`. Ends when the marks of all shards that were made are seen here, or were waited for."""
        made = []
        for result in self.workers.results(job, shards, reached):
            if result.done:
                made.append(result.shard)
            yield result
        _await_marks(job, made)


def _await_marks(job: Job, shards: Sequence[int]) -> None:
    """Wait for marks on file systems such as NFS, which answer from memory that a file is not there."""
    folders = [product.folder for product in job.products if not is_remote(product.folder)]
    unseen = [stats_path(folder, shard) for folder in folders for shard in shards]
    until = time.monotonic() + _LATE
    while unseen := [path for path in unseen if not path.exists()]:
        if time.monotonic() > until:
            return
        time.sleep(1)


class _IgnoreInterrupts(WorkerPlugin):
    """Leaves Ctrl-C, which reaches every process of a terminal, to the one that started the workers."""

    def setup(self, worker: object) -> None:  # noqa: ARG002
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _started(config: GenerationConfig) -> Iterator[Client]:
    # No memory limit: Dask would pause or kill a worker whose networks are large, not leaking.
    options = {
        "nthreads": 1,
        "memory_limit": None,
        "dashboard": False,
        "host": _LOOPBACK,
        "silence_logs": logging.CRITICAL,
    }
    gpus = _gpus(config)
    workers = {
        number: {"cls": Nanny, "options": {**options, "env": _only(gpus, number)}} for number in range(config.workers)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": _LOOPBACK, "port": 0, "dashboard": True, "dashboard_address": f"{_LOOPBACK}:0"},
    }
    # A worker that hangs is given up sooner than Dask does by itself, unless its configuration says otherwise.
    ttl = _LOCAL_TTL if dask.config.get(_TTL) == _DEFAULT_TTL else dask.config.get(_TTL)
    with (
        dask.config.set({_TTL: ttl, _GIVE_UP: "1000 days", **SHORT_LOGS}),
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        say(f"{config.workers} workers; Dask's dashboard: {cluster.dashboard_link}")
        client.register_plugin(_IgnoreInterrupts())
        try:
            yield client
        except KeyboardInterrupt:
            # What Dask and asyncio say of connections that close in mid-word helps nobody.
            logging.disable(logging.CRITICAL)
            raise


def _gpus(config: GenerationConfig) -> list[str]:
    """Return the GPUs that the run may use, as CUDA_VISIBLE_DEVICES names them."""
    if config.device not in {"auto", "cuda"} or not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _only(gpus: Sequence[str], number: int) -> dict[str, str]:
    """Return the environment in which a process sees only its own GPU, in turn where there are more processes."""
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


@contextmanager
def _joined(scheduler: str) -> Iterator[Client]:
    # What becomes of the connection is said in our own words.
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
            client.wait_for_workers(1, timeout=_ARRIVAL)
        except TimeoutError as error:
            raise UserError(
                f"The scheduler at {scheduler} has no worker, also after {_ARRIVAL:.0f} s; start some with "
                f"`dask worker {scheduler}`."
            ) from error
        say(f"{len(client.nthreads())} workers at {scheduler}; Dask's dashboard: {client.dashboard_link}")
        yield client


def _resources(client: Client, config: GenerationConfig) -> dict[str, float]:
    """Return what a worker must offer: a GPU if the run needs one, or may use one and some worker offers it."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if any(GPU in worker["resources"] for worker in workers) and config.device in {"auto", "cuda"}:
        return {GPU: 1}
    if config.device.startswith("cuda"):
        raise UserError(
            f"No worker offers a GPU; start those that have one with `--resources {GPU}=1`, or leave out --device."
        )
    return {}


def _threads_each(client: Client, resources: Mapping[str, float]) -> int:
    """Return the computing threads that every worker has for each shard that it works on at a time."""
    places = able_workers(client, resources)
    asked = {
        address: client.submit(available_cores, workers=[address], pure=False, resources=dict(resources))
        for address in places
    }
    cores = answers(client, asked)
    return min(max(1, number // places[address]) for address, number in cores.items())
