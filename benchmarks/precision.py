"""Difference of each precision's images from double precision, on the drawn world with its own networks.

    python -m benchmarks.precision

A sign decides each step of the ascent, so rounding can change the direction of a channel: this counts
how many channels and pixels are affected.
"""

import click
import torch

from attacks.statistics import AdvBNConfig
from basics.compute import choose_compute
from decoders.autoencoder import load_autoencoder
from networks.classifiers import load_classifier
from pipeline.batch_arithmetic import PerturbedBatch, Perturber, Shifter
from pipeline.drawn_networks import DRAWN_IMAGE_SIZE, drawn_networks
from sources.decode import load_image
from sources.drawn.source import SHAPES, DrawnSource

BATCH = 32


@click.command()
@click.option("--encoder", default="vgg", show_default=True)
@click.option("--device", default="cpu", show_default=True, help="Device of the precisions compared, and of fp64.")
@click.option("--precisions", default="fp32,bf16", show_default=True)
@click.option("--batches", default=4, show_default=True, help="Batches, spread over the validation split.")
def main(encoder: str, device: str, precisions: str, batches: int) -> None:
    """Print, for each precision, how many pixels and multipliers agree with double precision."""
    exact = _all_batches(encoder, device, "fp64", batches)
    for precision in precisions.split(","):
        found = _all_batches(encoder, device, precision, batches)
        pixels = torch.cat(
            [_near(ours.perturbed_N3HW, theirs.perturbed_N3HW) for ours, theirs in zip(found, exact, strict=True)]
        )
        deltas = torch.cat(
            [(ours.delta_std_C - theirs.delta_std_C).abs() < 1e-3 for ours, theirs in zip(found, exact, strict=True)]
        )
        loss = [torch.cat([batch.losses_SN[-1] for batch in run]).mean() for run in (found, exact)]
        click.echo(
            f"{precision}: {pixels.float().mean():.2%} of pixels within one grey level of fp64, "
            f"{deltas.float().mean():.2%} of delta_std equal, mean loss {loss[0]:.3f} (fp64 {loss[1]:.3f})"
        )


def _near(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return ((found.int() - expected.int()).abs() <= 1).flatten()


def _all_batches(encoder: str, device: str, precision: str, batches: int) -> list[PerturbedBatch]:
    own = drawn_networks(encoder)
    classifier = load_classifier(None, str(own.classifier), len(SHAPES)).module
    shifter = Shifter(load_autoencoder(own.autoencoder).module, choose_compute(device, precision))
    perturber = Perturber(shifter, classifier)
    source = DrawnSource("val", DRAWN_IMAGE_SIZE)
    results = []
    for number in range(batches):
        start = number * (len(source.records) // batches)
        records = source.records[start : start + BATCH]
        image = torch.stack([load_image(source.read(record), record.name, DRAWN_IMAGE_SIZE) for record in records])
        results.append(perturber(image, torch.tensor([record.label for record in records]), AdvBNConfig()))
    return results


if __name__ == "__main__":
    main()
