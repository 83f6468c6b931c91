"""What a run will cost: hours, disk and memory, from batches that are really made and thrown away."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from basics.compute import machine_kind
from basics.errors import UserError, WorkError
from basics.memory import enough_memory, peak_memory
from basics.paths import AnyPath, is_remote
from basics.progress import say
from pipeline.compiled import compilation_failure, is_compilation_error
from pipeline.dataset.layout import STATS, is_done
from pipeline.dataset.manifest import DatasetDescription
from pipeline.job import Job
from pipeline.shard import ShardPlan, make_shard
from pipeline.worker import ready_worker

IMAGENET = 50_000
"""Images of ImageNet's validation set."""
_LONG_ENOUGH = 20.0
"""Seconds of work after which a rate is believed; a first batch that takes as long is the only one that is timed."""
_MOST_BATCHES = 16
"""Batches that are timed, at most: more would only make the estimate slower."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What some images cost."""

    images: int
    """Number of images."""
    hours: float
    """Wall time, if the processes do not slow each other down: that of the process with most images, since a shard is
    made by one."""
    disk_bytes: int
    """Size of all shards."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Result of a timed run of some batches."""

    machine: str
    """Kind of the machine that was timed."""
    threads: int
    """Computing threads of the process."""
    processes: int
    """Processes of the run."""
    timed_images: int
    """Images that were timed."""
    timed_batches: int
    """Batches that they lay in."""
    seconds: float
    """Time that they took, from reading to the finished shard."""
    bytes_an_image: float
    """Size of the shards for each image."""
    memory_bytes: int
    """Peak memory of the process."""
    device_memory_bytes: int | None
    """Peak memory of tensors on a CUDA device; None on others."""
    free_bytes: int | None
    """Free disk space where the data set is to be; None for an object store."""
    to_do: Cost
    """Images that this run will make."""
    imagenet: Cost | None
    """ImageNet's validation set at the same settings; None if only some of the run's data sets are to be made, whose
    cost is not that of all."""

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the estimate for people."""
        rate = self.timed_images / self.seconds
        batches = "a batch" if self.timed_batches == 1 else f"{self.timed_batches} batches"
        memory = f"{self.memory_bytes / 1e9:.2f} GB of memory"
        if self.device_memory_bytes is not None:
            memory += f", {self.device_memory_bytes / 1e9:.2f} GB on the device"
        if self.processes > 1:
            memory += f", in each of {self.processes} processes; times if they do not slow each other down"
        costs = {"to do": self.to_do}
        if self.imagenet is not None and self.imagenet.images != self.to_do.images:
            costs["ImageNet's validation set at these settings"] = self.imagenet
        free = "" if self.free_bytes is None else f" (free there: {self.free_bytes / 1e9:.1f} GB)"
        return [
            f"timed {batches} of {self.timed_images} images in all on {self.machine}, {self.threads} threads: "
            f"{self.seconds:.1f} s, {rate:.3g} images/s; {memory}",
            *(
                f"{name}: {cost.images} images, {cost.hours:.3g} hours, {cost.disk_bytes / 1e9:.3g} GB"
                + (free if cost is self.to_do else "")
                for name, cost in costs.items()
            ),
        ]


def estimate(job: Job, missing: Sequence[int], *, overwrite: bool = False) -> Estimate:
    """Make batches of a run's first missing shard, throw them away, and compute what the run costs.

    On a machine where a batch takes long, that is one batch. Elsewhere the first one warms up, and the following ones
    are timed as they are made in a run: while one is computed, others are read and written.

    Args:
        job: the run.
        missing: its shards that are to be made.
        overwrite: whether finished shards of the data sets are made again.

    Raises:
        UserError: the batches cannot be made.
    """
    say("Making batches to estimate the cost; they are not kept.")
    shard = missing[0] if missing else 0
    lacking = [each for each in job.datasets if overwrite or not is_done(each.folder, shard, each.fingerprint)]
    try:
        with tempfile.TemporaryDirectory() as folder, enough_memory("give a smaller --micro-batch"):
            timed = _timed(job, shard, lacking or job.datasets, Path(folder))
    except (WorkError, OSError) as error:
        raise UserError(f"No batch could be timed: {str(error).rstrip('.')}.") from error
    except Exception as error:
        if is_compilation_error(error):
            raise UserError(compilation_failure(error)) from error
        raise
    networks = ready_worker(job.requirements)
    device = networks.shifter.compute.device
    processes = max(1, job.config.workers)
    imagenet = replace(job.plan, images=IMAGENET)
    only_some = 0 < len(lacking) < len(job.datasets)

    def cost(shards: Sequence[int]) -> Cost:
        images = sum(shards)
        hours = _most_images(shards, processes) * timed.seconds / timed.images / 3600
        return Cost(images=images, hours=hours, disk_bytes=round(images * timed.bytes_an_image))

    return Estimate(
        machine=machine_kind(device),
        threads=job.requirements.threads,
        processes=processes,
        timed_images=timed.images,
        timed_batches=timed.batches,
        seconds=timed.seconds,
        bytes_an_image=timed.bytes_an_image,
        memory_bytes=peak_memory(),
        device_memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        free_bytes=_free(job.datasets[0].folder),
        to_do=cost([job.plan.samples_in(shard) for shard in missing]),
        imagenet=None if only_some else cost([imagenet.samples_in(shard) for shard in range(imagenet.shards)]),
    )


@dataclass(frozen=True)
class _Timed:
    seconds: float
    images: int
    batches: int
    bytes_an_image: float


def _most_images(shards: Sequence[int], processes: int) -> int:
    """Return the images of the process that makes most, where each takes the next shard when it has none."""
    busy = [0] * processes
    for images in shards:
        busy[busy.index(min(busy))] += images
    return max(busy)


def _timed(job: Job, shard: int, datasets: Sequence[DatasetDescription], folder: Path) -> _Timed:
    plan = job.shard_plan(shard)
    first = _made(job, replace(plan, batches=plan.batches[:1]), datasets, folder / "first")
    # The first batch of networks that are compiled is mostly the compilation.
    if first.seconds >= _LONG_ENOUGH and not job.config.compiled:
        return first
    following = (plan.batches[1:] or plan.batches)[: max(1, min(_MOST_BATCHES, int(_LONG_ENOUGH / first.seconds)))]
    return _made(job, replace(plan, batches=following), datasets, folder / "following")


def _made(job: Job, plan: ShardPlan, datasets: Sequence[DatasetDescription], folder: Path) -> _Timed:
    """Make some batches of data sets in a folder of their own."""
    moved = [replace(dataset, folder=folder / dataset.name) for dataset in datasets]
    for dataset in moved:
        (dataset.folder / STATS).mkdir(parents=True)
    start = time.perf_counter()
    make_shard(ready_worker(job.requirements), plan, moved)
    seconds = time.perf_counter() - start
    images = sum(len(indices) for _, indices in plan.batches)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return _Timed(seconds, images, len(plan.batches), size / images)


def _free(folder: AnyPath) -> int | None:
    if is_remote(folder):
        return None
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(str(existing)).free
