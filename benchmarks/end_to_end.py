"""Cost of the main job beyond its arithmetic: a whole shard against the ascent alone on the same batches.

    python -m benchmarks.end_to_end --source IMAGES --image-size 256 --batches 2

Both are timed alternately in one process, so that the ratio holds on a machine whose speed drifts. Decoding, encoding,
hashing and writing overlap the arithmetic; the ratio shows how much of them does not.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.workload import loaded_batches, run_text, whole_shard, workload, workload_options
from pipeline.job import Job, Product, prepare
from pipeline.worker import ready_worker


@click.command()
@workload_options
@click.option("--rounds", default=3, show_default=True)
def main(rounds: int, **settings: Any) -> None:
    """Print the ratio of each round, and the median."""
    with tempfile.TemporaryDirectory() as folder:
        config = workload(Path(folder), **settings)
        job = prepare(config, (Product(folder=Path(folder) / "out", name="benchmark", perturbed=True),))
        loaded = loaded_batches(job)
        _ascent_alone(job, loaded)
        ratios, clean = [], []
        for number in range(rounds):
            whole, bare = whole_shard(job, Path(folder) / f"out{number}"), _ascent_alone(job, loaded)
            ratios.append(whole / bare)
            clean.append(_prediction(job, loaded) / bare)
            click.echo(f"end to end {whole:.2f} s, ascent alone {bare:.2f} s, ratio {ratios[-1]:.3f}")
    click.echo(
        f"median ratio {statistics.median(ratios):.3f} ({run_text(job)}); of the ascent alone "
        f"{statistics.median(clean):.1%} is the prediction on the originals"
    )


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


if __name__ == "__main__":
    main()
