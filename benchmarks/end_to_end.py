"""Cost of the main job beyond its arithmetic: a whole shard against the ascent alone on the same batches.

    python -m benchmarks.end_to_end --source IMAGES --image-size 256 --batches 2

Both are timed alternately in one process, so that the ratio holds on a machine whose speed drifts. Decoding, encoding,
hashing and writing overlap the arithmetic; the ratio shows how much of them does not.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.workload import described, workload, workload_options
from pipeline.dataset.layout import STATS
from pipeline.generate import generate_shard
from pipeline.job import Job, Product, prepare
from pipeline.worker import ready_worker
from sources.decode import load_image


@click.command()
@workload_options
@click.option("--rounds", default=3, show_default=True)
def main(rounds: int, **settings: Any) -> None:
    """Print the ratio of each round, and the median."""
    with tempfile.TemporaryDirectory() as folder:
        config = workload(Path(folder), **settings)
        job = prepare(config, (Product(folder=Path(folder) / "out", name="benchmark", perturbed=True),))
        loaded = _loaded(job)
        _ascent_alone(job, loaded)
        ratios, clean = [], []
        for number in range(rounds):
            whole, bare = _whole_shard(job, Path(folder) / f"out{number}"), _ascent_alone(job, loaded)
            ratios.append(whole / bare)
            clean.append(_prediction(job, loaded) / bare)
            click.echo(f"end to end {whole:.2f} s, ascent alone {bare:.2f} s, ratio {ratios[-1]:.3f}")
    click.echo(
        f"median ratio {statistics.median(ratios):.3f} ({described(job)}); of the ascent alone "
        f"{statistics.median(clean):.1%} is the prediction on the originals"
    )


def _loaded(job: Job) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = []
    for _, indices in job.plan.batches_of(0):
        records = [job.records[index] for index in indices]
        images = [load_image(job.source.read(record), record.name, job.config.image_size) for record in records]
        batches.append((torch.stack(images), torch.tensor([record.label for record in records])))
    return batches


def _ascent_alone(job: Job, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    perturber = ready_worker(job.requirements).perturber
    assert perturber is not None
    start = time.perf_counter()
    for image, label in batches:
        perturber(image, label, job.config.attack)
    return time.perf_counter() - start


@torch.no_grad()
def _prediction(job: Job, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    networks = ready_worker(job.requirements)
    assert networks.classifier is not None
    compute = networks.shifter.compute
    start = time.perf_counter()
    for image, _ in batches:
        networks.classifier.module(image.to(compute.device, compute.dtype) / 255).argmax(1).cpu()
    return time.perf_counter() - start


def _whole_shard(job: Job, out: Path) -> float:
    (out / STATS).mkdir(parents=True)
    fresh = replace(job, datasets=(replace(job.datasets[0], folder=out),))
    start = time.perf_counter()
    result = generate_shard(fresh, 0)
    seconds = time.perf_counter() - start
    if not result.done:
        raise click.ClickException(result.reason)
    return seconds


if __name__ == "__main__":
    main()
