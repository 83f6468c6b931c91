"""The shard that benchmarks make: its settings as options, with networks of seeded weights."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import nn

from commands.options import MICRO_BATCH
from decoders.autoencoder import Autoencoder, save_autoencoder
from encoders import encoder_kind
from pipeline.config import AUTO, GenerationConfig
from pipeline.dataset.layout import STATS
from pipeline.generate import generate_shard
from pipeline.job import Job
from sources.decode import load_image

CLASSIFIER_WEIGHTS = "seed:0"
_SPREAD = 0.2
"""Standard deviation of the decoded values, whose mean is grey."""
_OPTIONS = (
    click.option("--source", required=True, help="Labelled images."),
    click.option("--encoder", default="vgg", show_default=True),
    click.option("--image-size", default=256, show_default=True),
    click.option("--batch-size", default=32, show_default=True),
    click.option("--batches", default=2, show_default=True, help="Batches of the shard that is made."),
    click.option("--device", default="auto", show_default=True),
    click.option("--micro-batch", type=MICRO_BATCH, default=AUTO, show_default=True, help="Images in one pass."),
    click.option("--width", default=1.0, show_default=True, help="Scale of the autoencoder's channels."),
    click.option("--classifier", help="torchvision network. [default: the encoder's own]"),
)


def workload_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `workload` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def workload(
    folder: Path, *, encoder: str, batches: int, batch_size: int, width: float = 1.0, **settings: Any
) -> GenerationConfig:
    """Return the config of a run of one shard with so many batches; its autoencoder is written to a folder.

    Weights come from a seed: their values do not change the cost. They are such that a perturbation can be seen.
    """
    autoencoder = folder / "autoencoder.safetensors"
    save_autoencoder(autoencoder, seeded_autoencoder(encoder, width), "seed", {})
    return GenerationConfig(
        encoder=encoder,
        autoencoder=str(autoencoder),
        classifier_weights=CLASSIFIER_WEIGHTS,
        batch_size=batch_size,
        batches_per_shard=batches,
        limit=batches * batch_size,
        **settings,
    )


@torch.no_grad()
def seeded_autoencoder(encoder: str, width: float) -> Autoencoder:
    """Return an autoencoder whose images are as different as photographs.

    With torch's own initial weights signals die out in the encoder, and all images would be the same grey whatever is
    done to the features.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Autoencoder(encoder_kind(encoder), width)
        for layer in module.encoder.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        soft = F.interpolate(torch.rand(4, 3, 8, 8), size=64, mode="bilinear")
    last = [layer for layer in module.decoder if isinstance(layer, nn.Conv2d)][-1]
    assert last.bias is not None
    last.weight *= _SPREAD / module(soft).std()
    last.bias += 0.5 - module(soft).mean(dim=(0, 2, 3))
    return module


def loaded_batches(job: Job) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the 8-bit images and the labels of each batch of the shard."""
    batches = []
    for _, indices in job.plan.batches_of(0):
        records = [job.records[index] for index in indices]
        images = [load_image(job.source.read(record), record.name, job.config.image_size) for record in records]
        batches.append((torch.stack(images), torch.tensor([record.label for record in records])))
    return batches


def whole_shard(job: Job, out: Path) -> float:
    """Make the shard in a new folder, and return how long that took.

    Raises:
        click.ClickException: it could not be made.
    """
    (out / STATS).mkdir(parents=True)
    fresh = replace(job, datasets=(replace(job.datasets[0], folder=out),))
    start = time.perf_counter()
    result = generate_shard(fresh, 0)
    seconds = time.perf_counter() - start
    if not result.done:
        raise click.ClickException(result.reason)
    return seconds


def run_text(job: Job) -> str:
    """Return settings and hardware of a run, for the line of the result."""
    config, arithmetic = job.config, job.identity["arithmetic"]
    micro_batch = f" (micro-batches of {arithmetic['micro_batch']})" if "micro_batch" in arithmetic else ""
    return (
        f"{config.encoder}, {config.image_size} px, {config.limit} images in batches of {config.batch_size}"
        f"{micro_batch}, {arithmetic['hardware']}, {arithmetic['precision']}, {torch.get_num_threads()} threads"
    )
