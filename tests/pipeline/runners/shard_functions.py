"""Functions that stand in for making a shard, and a local cluster that they run on: what they do is scripted."""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dask

from pipeline.config import GenerationConfig
from pipeline.dataset.layout import mark_path
from pipeline.generate import generate_shard
from pipeline.job import Job
from pipeline.outcome import Outcome, ShardResult
from pipeline.runners.dask_runner import DaskRunner
from pipeline.runners.local_cluster import local_cluster
from pipeline.runners.runner import ShardFunction
from tests.processes import preloaded

FORKED = {"distributed.worker.multiprocessing-method": "forkserver"}
"""Dask's configuration under which its worker processes are forked from the server of `tests.processes`."""


@dataclass(frozen=True)
class Scripted:
    """Makes nothing; each shard that would be made leaves a file with the process id of its worker."""

    folder: Path
    fatal_shards: Sequence[int] = ()
    """Shards that kill their worker."""
    first_differs: bool = False
    """Whether the environment of the worker that is called first differs from the run's."""
    first_has_no_mount: bool = False
    """Whether the worker that is called first fails at every shard."""
    others_die_once: bool = False
    """Whether the worker that is called next dies of its first shard."""

    def __call__(self, _: Job, shard: int, on_batch: Callable[[int], None]) -> ShardResult:
        if self.first_differs and self._is_first("differs"):
            return ShardResult(shard=shard, outcome=Outcome.WRONG_ENVIRONMENT, reason="software.torch: 2.9 -> 2.10")
        if shard in self.fatal_shards or (self.others_die_once and self._is_first("dead")):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.first_has_no_mount:
            if self._is_first("no-mount"):
                with (self.folder / f"tries-{shard}").open("a") as file:
                    file.write("x")
                outcome = Outcome.MACHINE_FAULT if shard == 3 else Outcome.TRANSIENT
                return ShardResult(shard=shard, outcome=outcome, reason=f"shard {shard}: no such mount.")
            time.sleep(0.5)  # So that the one that fails at once could take most shards.
        on_batch(1)
        (self.folder / f"{shard}").write_text(str(os.getpid()))
        return ShardResult(shard=shard)

    def _is_first(self, role: str) -> bool:
        """Whether this process was the first to take a role."""
        holder = self.folder / role
        try:
            with holder.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return holder.read_text() == str(os.getpid())
        return True


@dataclass(frozen=True)
class SlowWithProgress:
    """Reports a batch every 0.1 s for 1.5 s, so that the client always has events to handle."""

    folder: Path

    def __call__(self, _: Job, shard: int, on_batch: Callable[[int], None]) -> ShardResult:
        begun = time.monotonic()
        while time.monotonic() - begun < 1.5:
            time.sleep(0.1)
            on_batch(1)
        (self.folder / f"{shard}").write_text(f"{begun} {time.monotonic()}")
        return ShardResult(shard=shard)


@dataclass(frozen=True)
class BrokenWorkers:
    """Fails on the workers that are called first."""

    folder: Path
    broken: int
    """Number of broken workers."""
    fault: str
    """`raised` for an exception, anything else for a full disk."""

    def __call__(self, _: Job, shard: int, on_batch: Callable[[int], None]) -> ShardResult:
        if self._is_broken():
            if self.fault == "raised":
                raise RuntimeError("CUDA error: unspecified launch failure")
            reason = f"shard {shard}: [Errno 28] No space left on device."
            return ShardResult(shard=shard, outcome=Outcome.MACHINE_FAULT, reason=reason)
        time.sleep(0.5)
        on_batch(1)
        return ShardResult(shard=shard)

    def _is_broken(self) -> bool:
        """Whether this process is one of the first."""
        with (self.folder / "order").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            order, own = file.read().split(), str(os.getpid())
            if own not in order:
                order.append(own)
                file.write(f"{own} ")
        return order.index(own) < self.broken


@dataclass(frozen=True)
class DelayedMarks:
    """Makes the shard on a machine whose marks the client sees only seconds later, as on NFS."""

    def __call__(self, job: Job, shard: int, on_batch: Callable[[int], None]) -> ShardResult:
        result = generate_shard(job, shard, on_batch)
        mark = Path(str(mark_path(job.datasets[0].folder, shard)))
        hidden = mark.with_suffix(".hidden")
        mark.rename(hidden)
        threading.Timer(2, hidden.rename, [mark]).start()
        return result


@dataclass(frozen=True)
class StoreOutage:
    """Fails until a store is back; each attempt leaves a file."""

    folder: Path
    until: float
    """Unix time at which the store is back."""

    def __call__(self, _: Job, shard: int, on_batch: Callable[[int], None]) -> ShardResult:
        now = time.time()
        (self.folder / f"{shard}-{now}").touch()
        if now < self.until:
            reason = f"shard {shard}: the store does not answer."
            return ShardResult(shard=shard, outcome=Outcome.TRANSIENT, reason=reason)
        on_batch(1)
        return ShardResult(shard=shard)


def make_shards(
    job: Job, shard_function: ShardFunction, shards: int, workers: int, failures: int = 1
) -> tuple[list[ShardResult], list[tuple[int, int]]]:
    """Call a shard function in real worker processes; return the results, and the progress that was reported.

    Args:
        job: the run.
        shard_function: what is called for each shard.
        shards: number of shards.
        workers: number of worker processes.
        failures: workers that a shard may kill before Dask gives it up.
    """
    progress: list[tuple[int, int]] = []
    config = GenerationConfig(encoder="vgg", source=None, autoencoder=None, workers=workers)
    preloaded()
    settings = {"distributed.scheduler.allowed-failures": failures, **FORKED}
    with dask.config.set(settings), local_cluster(config) as client:
        runner = DaskRunner(client, shard_function=shard_function)
        results = runner.results(job, range(shards), lambda shard, images: progress.append((shard, images)))
        return list(results), progress
