"""What the main job costs beyond its arithmetic: end to end against the bare ascent on the same batches.

    python benchmarks/end_to_end.py --source IMAGES --image-size 256 --batches 2

Both are timed in turn in one process, so that the ratio holds on a machine whose speed drifts. Decoding, encoding,
hashing and writing overlap the arithmetic; the ratio shows what of them is left. Weights come from a seed: their values
do not change the cost.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import torch

from decoders.autoencoder import Autoencoder, save_autoencoder
from encoders import encoder_kind
from pipeline.config import GenerationConfig
from pipeline.generate import generate_shard
from pipeline.job import Job, Product, load_networks, prepare
from pipeline.layout import STATS
from sources.decode import load_image


@click.command()
@click.option("--source", required=True, help="Labelled images.")
@click.option("--encoder", default="vgg", show_default=True)
@click.option("--image-size", default=256, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--batches", default=2, show_default=True, help="Batches of the shard that is made.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(source: str, encoder: str, image_size: int, batch_size: int, batches: int, rounds: int, device: str) -> None:
    """Print the ratio of each round, and the median."""
    with tempfile.TemporaryDirectory() as folder:
        autoencoder = Path(folder) / "autoencoder.safetensors"
        save_autoencoder(autoencoder, Autoencoder(encoder_kind(encoder)), "seed", {})
        config = GenerationConfig(
            encoder=encoder,
            source=source,
            autoencoder=str(autoencoder),
            classifier_weights="seed:0",
            image_size=image_size,
            batch_size=batch_size,
            batches_per_shard=batches,
            limit=batches * batch_size,
            device=device,
        )
        job = prepare(config, (Product(folder=Path(folder) / "out", name="benchmark", perturbed=True),))
        loaded = _loaded(job)
        _bare(job, loaded)
        ratios, clean = [], []
        for number in range(rounds):
            whole, bare = _end_to_end(job, Path(folder) / f"out{number}"), _bare(job, loaded)
            ratios.append(whole / bare)
            clean.append(_clean(job, loaded) / bare)
            click.echo(f"end to end {whole:.2f} s, bare {bare:.2f} s, ratio {ratios[-1]:.3f}")
    images = batches * batch_size
    click.echo(
        f"median ratio {statistics.median(ratios):.3f} ({encoder}, {image_size} px, {images} images in batches of "
        f"{batch_size}, {job.identity['arithmetic']['hardware']}, {torch.get_num_threads()} threads); of the bare part "
        f"{statistics.median(clean):.1%} is the prediction on the originals"
    )


def _loaded(job: Job) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = []
    for _, indices in job.plan.batches_of(0):
        records = [job.records[index] for index in indices]
        images = [load_image(job.source.read(record), record.name, job.config.image_size) for record in records]
        batches.append((torch.stack(images), torch.tensor([record.label for record in records])))
    return batches


def _bare(job: Job, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    perturber = load_networks(job.config, job.source.classes.count).perturber
    start = time.perf_counter()
    for image, label in batches:
        perturber(image, label, job.config.attack)
    return time.perf_counter() - start


@torch.no_grad()
def _clean(job: Job, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    networks = load_networks(job.config, job.source.classes.count)
    compute = networks.compute
    start = time.perf_counter()
    for image, _ in batches:
        networks.classifier.module(image.to(compute.device, compute.dtype) / 255).argmax(1).cpu()
    return time.perf_counter() - start


def _end_to_end(job: Job, out: Path) -> float:
    (out / STATS).mkdir(parents=True)
    fresh = replace(job, products=(replace(job.products[0], folder=out),))
    start = time.perf_counter()
    result = generate_shard(fresh, 0)
    seconds = time.perf_counter() - start
    if result.error:
        raise click.ClickException(result.error)
    return seconds


if __name__ == "__main__":
    main()
