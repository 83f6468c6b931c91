"""What stands for the work on shards, in real worker processes."""

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
from pipeline.dataset.layout import stats_path
from pipeline.generate import generate_shard
from pipeline.job import Job
from pipeline.outcome import Outcome, ShardResult
from pipeline.runners import cluster as cluster_module
from pipeline.runners.distributed import Distributed
from pipeline.runners.tasks import Work
from tests.processes import preloaded

FORKED = {"distributed.worker.multiprocessing-method": "forkserver"}
"""Dask's configuration under which its worker processes are forked from the server of `tests.processes`."""


@dataclass(frozen=True)
class Scripted:
    """Stands for the work on a shard; what is made leaves a file."""

    folder: Path
    deadly: Sequence[int] = ()
    first_is_unlike: bool = False
    first_has_no_disk: bool = False
    deadly_once: bool = False
    """Whether the others die of the first shard that they are given."""

    def __call__(self, _: Job, shard: int, reached: Callable[[int], None]) -> ShardResult:
        if self.first_is_unlike and self._is_first("unlike"):
            return ShardResult(shard=shard, outcome=Outcome.WRONG_ENVIRONMENT, reason="software.torch: 2.9 -> 2.10")
        if shard in self.deadly or (self.deadly_once and self._is_first("dead")):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.first_has_no_disk:
            if self._is_first("no-disk"):
                with (self.folder / f"tries-{shard}").open("a") as file:
                    file.write("x")
                outcome = Outcome.MACHINE_FAULT if shard == 3 else Outcome.TRANSIENT
                return ShardResult(shard=shard, outcome=outcome, reason=f"shard {shard}: no such mount.")
            time.sleep(0.5)  # So that the one that fails at once could take most shards.
        reached(1)
        (self.folder / f"{shard}").write_text(str(os.getpid()))
        return ShardResult(shard=shard)

    def _is_first(self, what: str) -> bool:
        mine = self.folder / what
        try:
            with mine.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return mine.read_text() == str(os.getpid())
        return True


@dataclass(frozen=True)
class Talkative:
    """Stands for the work on a shard whose batches are done quickly: the client always has news to deal with."""

    folder: Path

    def __call__(self, _: Job, shard: int, reached: Callable[[int], None]) -> ShardResult:
        begun = time.monotonic()
        while time.monotonic() - begun < 1.5:
            time.sleep(0.1)
            reached(1)
        (self.folder / f"{shard}").write_text(f"{begun} {time.monotonic()}")
        return ShardResult(shard=shard)


@dataclass(frozen=True)
class Sick:
    """The work on a shard where some workers are broken."""

    folder: Path
    broken: int
    fault: str

    def __call__(self, _: Job, shard: int, reached: Callable[[int], None]) -> ShardResult:
        if self._is_broken():
            if self.fault == "raised":
                raise RuntimeError("CUDA error: unspecified launch failure")
            error = f"shard {shard}: [Errno 28] No space left on device."
            return ShardResult(shard=shard, outcome=Outcome.MACHINE_FAULT, reason=error)
        time.sleep(0.5)
        reached(1)
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
class Late:
    """The work on a shard by a machine whose marks the client sees only seconds later, as on NFS."""

    def __call__(self, job: Job, shard: int, reached: Callable[[int], None]) -> ShardResult:
        result = generate_shard(job, shard, reached)
        mark = Path(str(stats_path(job.products[0].folder, shard)))
        hidden = mark.with_suffix(".hidden")
        mark.rename(hidden)
        threading.Timer(2, hidden.rename, [mark]).start()
        return result


def scripted(
    job: Job, work: Work, shards: int, workers: int, failures: int = 1
) -> tuple[list[ShardResult], list[tuple[int, int]]]:
    """Carry work out in real processes; return what is left of each shard, and what was told of progress."""
    told: list[tuple[int, int]] = []
    preloaded()
    config = GenerationConfig(encoder="vgg", source=None, autoencoder=None, workers=workers)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": failures, **FORKED}),
        cluster_module._started(config) as client,
    ):
        runner = Distributed(client, work=work)
        return list(runner.results(job, range(shards), lambda *words: told.append(words))), told


@dataclass(frozen=True)
class Away:
    """The work on a shard while a store is away for some seconds; each try leaves a file."""

    folder: Path
    until: float

    def __call__(self, _: Job, shard: int, reached: Callable[[int], None]) -> ShardResult:
        now = time.time()
        (self.folder / f"{shard}-{now}").touch()
        if now < self.until:
            reason = f"shard {shard}: the store does not answer."
            return ShardResult(shard=shard, outcome=Outcome.TRANSIENT, reason=reason)
        reached(1)
        return ShardResult(shard=shard)
