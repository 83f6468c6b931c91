"""What rendering costs beside generation: the same batches made by the ascent and again from the ledger, in turn.

    python benchmarks/render.py --source IMAGES --image-size 256 --batch-size 8 --batches 1

Both are whole shards: decoding, encoding, hashing and writing included. Weights come from a seed: their values do not
change the cost.
"""

import statistics
import tempfile
import time
from pathlib import Path

import click
import torch

from decoders.autoencoder import Autoencoder, save_autoencoder
from encoders import encoder_kind
from pipeline.config import GenerationConfig
from pipeline.job import Job, prepare, products_of
from pipeline.layout import LEDGER
from pipeline.render import RenderRequest, read_renderable, render_job
from pipeline.run import run


@click.command()
@click.option("--source", required=True, help="Labelled images.")
@click.option("--encoder", default="vgg", show_default=True)
@click.option("--image-size", default=256, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--batches", default=2, show_default=True, help="Batches of the shard that is made.")
@click.option("--rounds", default=2, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(source: str, encoder: str, image_size: int, batch_size: int, batches: int, rounds: int, device: str) -> None:
    """Print the ratio of each round, the median, and whether the bytes were the same."""
    ratios, made, again = [], 0.0, 0.0
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
        for number in range(rounds):
            out = Path(folder) / f"out{number}"
            job = prepare(config, products_of(config, out, "benchmark-advbn"))
            made = _seconds(job)
            request = RenderRequest(
                ledger=out / LEDGER, source=source, autoencoder=str(autoencoder), device=config.device
            )
            rendering = render_job(request, read_renderable(request.ledger), Path(folder) / f"rendered{number}")
            again = _seconds(rendering)
            if _bytes(out) != _bytes(Path(folder) / f"rendered{number}"):
                raise click.ClickException("the rendered shards are other bytes")
            ratios.append(again / made)
            click.echo(f"generated in {made:.2f} s, rendered in {again:.2f} s, ratio {ratios[-1]:.3f}")
        images = batches * batch_size
        click.echo(
            f"median ratio {statistics.median(ratios):.3f}, equal bytes ({encoder}, {image_size} px, {images} images "
            f"in batches of {batch_size}, {job.identity['arithmetic']['hardware']}, {torch.get_num_threads()} threads)"
        )


def _seconds(job: Job) -> float:
    start = time.perf_counter()
    run(job)
    return time.perf_counter() - start


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*folder.glob("*.tar"), *folder.glob("stats/*")]}


if __name__ == "__main__":
    main()
