"""How the client and the scheduler keep up with many workers, the computation replaced by a wait.

    python -m benchmarks.scaling --plot docs/figures/scaling.png

A plan of ImageNet's whole training set is made, and its shards are submitted to simulated Dask workers: all of them in
one process beside this one, over TCP. Their messages are real; instead of making a shard they sleep for as long as that
takes. The difference to the ideal speed is the cost of submitting and collecting. The memory is that of client and
scheduler together.
"""

import asyncio
import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import dask
import matplotlib as mpl
import psutil
from distributed import Client, Scheduler, SpecCluster, Worker
from matplotlib.figure import Figure

from pipeline.config import GenerationConfig
from pipeline.job import Job
from pipeline.outcome import ShardResult
from pipeline.perturbation import Ascent
from pipeline.runners.dask_runner import SHORT_LOGS, DaskRunner
from pipeline.worker import Requirements
from sources.base import ClassMap, ImageRecord, Source
from sources.keys import sample_keys
from sources.opening import open_source
from sources.order import IMAGE_FOLDER, image_folder_order

CLASSES = 1000


class GeneratedNames(Source):
    """As many names and labels as ImageNet's training set, without images."""

    def __init__(self, images: int) -> None:
        names = tuple(f"n{number:08d}" for number in range(CLASSES))
        labels = [number * CLASSES // images for number in range(images)]
        self.records = image_folder_order(
            {f"{names[label]}/{names[label]}_{number}.JPEG": label for number, label in enumerate(labels)}
        )
        self.classes, self.order, self.address = ClassMap(names=names, imagenet=True), IMAGE_FOLDER, "simulated"

    def read(self, record: ImageRecord) -> bytes:
        """Raise OSError: there is no image."""
        raise OSError(f"{record.name} is simulated")


@dataclass(frozen=True)
class Sleep:
    """A shard function that only sleeps."""

    seconds: float
    """Duration of a shard."""

    def __call__(self, job: Job, shard: int, on_batch: Callable[[int], None]) -> ShardResult:
        """Sleep, and report all images at the end."""
        time.sleep(self.seconds)
        on_batch(job.plan.samples_in(shard))
        return ShardResult(shard=shard)


@dataclass
class Timeline:
    """Measurements during a run, once a second."""

    seconds: list[float] = field(default_factory=list)
    """Time since the beginning."""
    shards: list[int] = field(default_factory=list)
    """Finished shards at that time."""
    mebibytes: list[float] = field(default_factory=list)
    """Memory of client and scheduler at that time."""


def planned(source: Source, batches_per_shard: int) -> Job:
    """Make the plan of a run."""
    config = GenerationConfig(encoder="vgg", source=None, autoencoder=None, batches_per_shard=batches_per_shard)
    return Job(
        config=config,
        source=source,
        records=source.records,
        keys=sample_keys(source.records),
        plan=config.plan(len(source.records)),
        perturbation=Ascent(attack=config.attack, classes=CLASSES),
        datasets=(),
        requirements=Requirements(config=config, classes=CLASSES, threads=1, environment={}),
        identity={"records_sha256": source.digest()},
    )


@click.command()
@click.option("--images", default=1_281_167, show_default=True)
@click.option("--source", metavar="PATH", help="Source to list, instead of so many generated names.")
@click.option("--batches-per-shard", default=4, show_default=True, help="4 make 10,010 shards of the training set.")
@click.option("--workers", default=64, show_default=True, help="0 stops after the plan.")
@click.option("--seconds", default=2.0, show_default=True, help="How long a shard takes: 128 images at 64 images/s.")
@click.option("--plot", type=click.Path(path_type=Path), help="PNG of shards and memory over time.")
def main(
    images: int, source: str | None, batches_per_shard: int, workers: int, seconds: float, plot: Path | None
) -> None:
    """Print the time and memory of planning, and the share of the ideal speed."""
    begin, before = time.monotonic(), _memory()
    listed = open_source(source) if source else GeneratedNames(images)
    job = planned(listed, batches_per_shard)
    planning, memory = time.monotonic() - begin, _memory() - before
    click.echo(f"plan of {len(listed.records)} images in {job.plan.shards} shards: {planning:.1f} s, {memory:.0f} MiB")
    if not workers:
        return
    dask.config.set(SHORT_LOGS)
    with _simulated(workers) as client:
        timeline = _run(job, DaskRunner(client, shard_function=Sleep(seconds)))
    ideal = job.plan.shards * seconds / workers
    tenth = len(timeline.mebibytes) // 10
    whole = timeline.seconds[-1]
    click.echo(f"{workers} workers: {whole:.1f} s, ideal {ideal:.1f} s, {ideal / whole:.1%}")
    click.echo(f"memory after a tenth {timeline.mebibytes[tenth]:.0f} MiB, at the end {timeline.mebibytes[-1]:.0f} MiB")
    if plot:
        _draw(timeline, job.plan.shards, ideal, plot)


@contextmanager
def _simulated(workers: int) -> Iterator[Client]:
    """Start a scheduler in this process and so many workers in another."""
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    with SpecCluster(scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster, Client(cluster) as client:
        process = multiprocessing.get_context("spawn").Process(
            target=_run_workers, args=(cluster.scheduler_address, workers), daemon=True
        )
        process.start()
        client.wait_for_workers(workers)
        yield client
        process.kill()
        process.join()


def _run_workers(address: str, workers: int) -> None:
    """Run so many workers in this process."""
    options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "silence_logs": logging.CRITICAL}

    async def work() -> None:
        async with AsyncExitStack() as stack:
            started = [await stack.enter_async_context(Worker(address, **options)) for _ in range(workers)]
            await asyncio.gather(*(worker.finished() for worker in started))

    # Every worker samples its threads a hundred times a second: negligible for one worker, but 64 of them use up the
    # core that all share here.
    dask.config.set({**SHORT_LOGS, "distributed.worker.profile.enabled": False})
    asyncio.run(work())


def _memory() -> float:
    """Return the resident memory of this process in MiB."""
    return float(psutil.Process().memory_info().rss) / 2**20


def _run(job: Job, runner: DaskRunner) -> Timeline:
    timeline, done = Timeline(), 0
    with _every_second(lambda: done, timeline):
        for result in runner.results(job, range(job.plan.shards), lambda *_: None):
            if not result.done:
                raise click.ClickException(result.reason)
            done += 1
    return timeline


@contextmanager
def _every_second(done: Callable[[], int], timeline: Timeline) -> Iterator[None]:
    """Record shards and memory once a second, and at the end."""
    begin, finished = time.monotonic(), threading.Event()

    def record() -> None:
        timeline.seconds.append(time.monotonic() - begin)
        timeline.shards.append(done())
        timeline.mebibytes.append(_memory())

    def watch() -> None:
        while not finished.wait(1):
            record()

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    finished.set()
    watcher.join()
    record()


def _draw(timeline: Timeline, shards: int, ideal: float, plot: Path) -> None:
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}):
        figure = Figure(figsize=(7.5, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0, ideal], [0, shards], color="0.6", linestyle="--", label="ideal")
        left.plot(timeline.seconds, timeline.shards, color="#0072B2", label="measured")
        left.set(xlabel="seconds", ylabel="shards")
        left.legend(frameon=False)
        right.plot(timeline.seconds, timeline.mebibytes, color="#D55E00")
        right.set(xlabel="seconds", ylabel="memory (MiB)", ylim=(0, None))
        figure.savefig(plot, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
