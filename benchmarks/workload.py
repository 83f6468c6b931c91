"""The shard that benchmarks make: its settings as options, with networks of seeded weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from decoders.autoencoder import Autoencoder, save_autoencoder
from encoders import encoder_kind
from pipeline.config import GenerationConfig
from pipeline.job import Job

_OPTIONS = (
    click.option("--source", required=True, help="Labelled images."),
    click.option("--encoder", default="vgg", show_default=True),
    click.option("--image-size", default=256, show_default=True),
    click.option("--batch-size", default=32, show_default=True),
    click.option("--batches", default=2, show_default=True, help="Batches of the shard that is made."),
    click.option("--device", default="auto", show_default=True),
)


def workload_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `workload` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def workload(folder: Path, *, encoder: str, batches: int, batch_size: int, **settings: Any) -> GenerationConfig:
    """Return the config of a run of one shard with so many batches; its autoencoder is written to a folder.

    Weights come from a seed: their values do not change the cost.
    """
    autoencoder = folder / "autoencoder.safetensors"
    save_autoencoder(autoencoder, Autoencoder(encoder_kind(encoder)), "seed", {})
    return GenerationConfig(
        encoder=encoder,
        autoencoder=str(autoencoder),
        classifier_weights="seed:0",
        batch_size=batch_size,
        batches_per_shard=batches,
        limit=batches * batch_size,
        **settings,
    )


def described(job: Job) -> str:
    """Return settings and hardware of a run, for the line of the result."""
    config, hardware = job.config, job.identity["arithmetic"]["hardware"]
    return (
        f"{config.encoder}, {config.image_size} px, {config.limit} images in batches of {config.batch_size}, "
        f"{hardware}, {torch.get_num_threads()} threads"
    )
