"""The local-cluster runner: a Dask scheduler and worker processes of this machine, one GPU for each."""

import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dask
import torch
from distributed import Client, Nanny, Scheduler, SpecCluster, WorkerPlugin

from basics.errors import UserError, WorkError
from basics.progress import say
from pipeline.config import GenerationConfig
from pipeline.job import Job
from pipeline.outcome import ShardResult
from pipeline.runners.dask_runner import SHORT_LOGS, DaskRunner
from pipeline.runners.runner import OnProgress

_WORKER_TTL = "distributed.scheduler.worker-ttl"
"""Dask's setting: how long after its last heartbeat the scheduler declares a worker dead."""
_DASK_TTL, _LOCAL_TTL = "5 minutes", "1 minute"
_RESTART_TIMEOUT = "distributed.deploy.lost-worker-timeout"
"""Dask's setting after which it no longer restarts a worker that happens to be between two deaths at that moment."""
_NO_WORKER_TIMEOUT = 60.0
"""Seconds to wait when no worker is left; Dask restarts them at once."""
_LOOPBACK = "127.0.0.1"
_STARTING = "ADVBN_STARTING_WORKERS"
"""Environment variable of processes that are started as workers: a folder for `end_unguarded_worker`."""
_UNGUARDED = "unguarded"
"""File in that folder."""


@dataclass(frozen=True)
class LocalClusterRunner:
    """Makes shards in `config.workers` processes of this machine, which live as long as there is work."""

    config: GenerationConfig

    def results(self, job: Job, shards: Sequence[int], on_progress: OnProgress) -> Iterator[ShardResult]:
        """See `Runner`."""
        with local_cluster(self.config) as client:
            runner = DaskRunner(client, no_worker_timeout=_NO_WORKER_TIMEOUT)
            yield from runner.results(job, shards, on_progress)


class _IgnoreInterrupts(WorkerPlugin):
    """Leaves Ctrl-C, which reaches every process of a terminal, to the process that started the workers."""

    def setup(self, worker: object) -> None:  # noqa: ARG002
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def local_cluster(config: GenerationConfig) -> Iterator[Client]:
    """Start a scheduler and `config.workers` worker processes; end them with the context."""
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
        number: {"cls": Nanny, "options": {**options, "env": _gpu_environment(gpus, number)}}
        for number in range(config.workers)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": _LOOPBACK, "port": 0, "dashboard": True, "dashboard_address": f"{_LOOPBACK}:0"},
    }
    # A worker that hangs is declared dead sooner than by Dask's default, unless the user has configured another time.
    ttl = _LOCAL_TTL if dask.config.get(_WORKER_TTL) == _DASK_TTL else dask.config.get(_WORKER_TTL)
    with (
        dask.config.set({_WORKER_TTL: ttl, _RESTART_TIMEOUT: "1000 days", **SHORT_LOGS}),
        _started(workers, scheduler) as cluster,
        Client(cluster) as client,
    ):
        say(f"{config.workers} workers; Dask's dashboard: {cluster.dashboard_link}")
        client.register_plugin(_IgnoreInterrupts())
        try:
            yield client
        except KeyboardInterrupt:
            # What Dask and asyncio log about connections that close in the middle of a message helps nobody.
            logging.disable(logging.CRITICAL)
            raise


def end_unguarded_worker() -> None:
    """End this process if it is being started as a worker, and was only to import the script that starts it.

    A new process imports the script of its parent, as far as `if __name__ == "__main__":`. Where a run is not behind
    that line it would begin in the worker as well. The parent finds out by a file.
    """
    folder = os.environ.get(_STARTING)
    # Python's own mark of a process that has not got its work yet, by which it refuses to start processes.
    if folder is not None and getattr(multiprocessing.current_process(), "_inheriting", False):
        with suppress(OSError):
            (Path(folder) / _UNGUARDED).touch()
        raise SystemExit(1)


@contextmanager
def _started(workers: dict[int, dict[str, object]], scheduler: dict[str, object]) -> Iterator[SpecCluster]:
    """Start Dask's processes, and end them with the context.

    Raises:
        UserError: the run is not behind `if __name__ == "__main__":` in its script.
        WorkError: they do not start for another reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ[_STARTING] = folder
        try:
            cluster = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)
        except RuntimeError as error:
            if (Path(folder) / _UNGUARDED).exists():
                raise UserError(
                    "Worker processes import the script that starts them, and this one begins a run when it is "
                    'imported; put the call under `if __name__ == "__main__":`, or take workers=0.'
                ) from None
            raise WorkError(f"The worker processes do not start ({error}); what they printed says why.") from error
        finally:
            del os.environ[_STARTING]
    with cluster:
        yield cluster


def _gpus(config: GenerationConfig) -> list[str]:
    """Return the GPUs that the run may use, as CUDA_VISIBLE_DEVICES names them."""
    if config.device not in {"auto", "cuda"} or not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _gpu_environment(gpus: Sequence[str], number: int) -> dict[str, str]:
    """Return the environment in which a process sees one GPU only; they are shared if there are more processes."""
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
