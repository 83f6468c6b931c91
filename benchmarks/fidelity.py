"""Whether a lower precision makes the same data set, on the drawn world with its own networks.

    python -m benchmarks.fidelity --device cuda --batches 15 --json fidelity.json

A sign decides each step of the ascent, so rounding can change the direction of a channel. Against fp64 this counts how
many pixels and multipliers agree. Pixels that differ need not make a worse data set, so against fp32 it compares what
the data set is for: the loss of the attacked network, and the accuracy of a network that the ascent did not use. A
precision passes if both are as fp32's, and the fastest that passes is named.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basics.compute import choose_compute
from basics.files import write_json
from benchmarks.modes import Mode, modes_of, precisions_of
from networks.classifiers import load_classifier
from pipeline.batch_arithmetic import PIXEL_MAXIMUM, PerturbedBatch
from pipeline.config import GenerationConfig
from pipeline.drawn_networks import DRAWN_IMAGE_SIZE, drawn_classifier, drawn_networks
from pipeline.worker import load_networks
from reports.intervals import Estimate, accuracy
from sources.decode import load_image
from sources.drawn.source import PER_CLASS, SHAPES, DrawnSource

BATCH = 32
MOST_BATCHES = len(SHAPES) * PER_CLASS["val"] // BATCH
LOSS_TOLERANCE = 0.01
"""Largest difference of the mean loss from fp32's, as a share of it."""
MULTIPLIER_TOLERANCE = 1e-3
"""Multipliers move in steps of 0.2; those that differ by less had the same signs in every step."""
EXACT, USUAL = Mode(precision="fp64"), Mode(precision="fp32")

Batches = list[tuple[Tensor, Tensor]]
"""8-bit images and labels of each batch."""


@dataclass(frozen=True, kw_only=True)
class ComparedNetworks:
    """Files of the networks with which precisions are compared."""

    encoder: str
    autoencoder: Path
    attacked: Path
    """The classifier that the ascent climbs."""
    unseen: Path
    """A classifier that the ascent does not use."""
    image_size: int = DRAWN_IMAGE_SIZE


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one mode makes of all batches."""

    pixels: Tensor
    """8-bit values of all perturbed images."""
    delta_std: Tensor
    """Multipliers of the standard deviations of all batches."""
    loss: float
    """Mean loss of the attacked network on the perturbed images."""
    correct_N: NDArray[np.bool_]
    """Whether the unseen network is right about each perturbed image."""
    seconds_per_batch: float
    """Median time of a batch."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """One mode beside fp64 and fp32."""

    mode: str
    pixels_near_fp64: float
    """Share of the pixels within one grey level."""
    multipliers_as_fp64: float
    """Share of the multipliers of standard deviations that are equal."""
    loss: float
    """Mean loss of the attacked network."""
    loss_holds: bool
    """Whether it is fp32's, within LOSS_TOLERANCE."""
    top1: float
    """Accuracy of the unseen network on the perturbed images."""
    top1_holds: bool
    """Whether it lies in the interval of fp32's."""
    seconds_per_batch: float

    @property
    def passes(self) -> bool:
        """Whether this mode may be used in place of fp32."""
        return self.loss_holds and self.top1_holds


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All modes beside fp64 and fp32."""

    hardware: str
    encoder: str
    images: int
    fp64_loss: float
    fp32_loss: float
    fp32_top1: Estimate
    """Accuracy of the unseen network on fp32's images, with its 95% interval."""
    rows: tuple[Fidelity, ...]

    @property
    def fastest(self) -> str | None:
        """Name of the fastest mode that passes; None if none does."""
        passing = [row for row in self.rows if row.passes]
        return min(passing, key=lambda row: row.seconds_per_batch).mode if passing else None

    def to_json(self) -> dict[str, Any]:
        """Return all values, with the verdicts."""
        rows = [{**asdict(row), "passes": row.passes} for row in self.rows]
        return {**asdict(self), "rows": rows, "fastest_that_passes": self.fastest}

    def table(self) -> str:
        """Return the values and verdicts as text."""
        top1 = self.fp32_top1
        return "\n".join(
            [
                f"{self.hardware}, encoder {self.encoder}, {self.images} images in batches of {BATCH}",
                f"fp64: mean loss {self.fp64_loss:.3f}; fp32: mean loss {self.fp32_loss:.3f}, "
                f"unseen top-1 {top1.value:.1%} ({top1.low:.1%} to {top1.high:.1%})",
                f"{'mode':<16} pixels as fp64  multipliers as fp64  mean loss  unseen top-1  s/batch  verdict",
                *(_line(row) for row in self.rows),
                f"fastest that passes: {self.fastest or 'none'}",
            ]
        )


def _line(row: Fidelity) -> str:
    failed = [name for name, holds in (("loss", row.loss_holds), ("top-1", row.top1_holds)) if not holds]
    verdict = f"fails ({', '.join(failed)})" if failed else "passes"
    return (
        f"{row.mode:<16} {row.pixels_near_fp64:14.2%}  {row.multipliers_as_fp64:19.2%}  {row.loss:9.3f}  "
        f"{row.top1:12.1%}  {row.seconds_per_batch:7.3f}  {verdict}"
    )


@click.command()
@click.option("--encoder", default="vgg", show_default=True)
@click.option("--device", default="auto", show_default=True, help="Device of all precisions, fp64 included.")
@click.option("--precisions", help="Precisions or modes, such as fp32,bf16,bf16-compiled. [default: the device's]")
@click.option(
    "--batches",
    type=click.IntRange(1, MOST_BATCHES),
    default=4,
    show_default=True,
    help="Batches, spread over the validation split.",
)
@click.option("--json", "out", type=click.Path(path_type=Path), help="File to write the values to.")
def main(encoder: str, device: str, precisions: str | None, batches: int, out: Path | None) -> None:
    """Print for each precision how far it is from fp64, and whether its data set is as good as fp32's."""
    found = compare(drawn_to_compare(encoder), device, modes_of(precisions or ",".join(precisions_of(device))), batches)
    click.echo(found.table())
    if out is not None:
        write_json(out, found.to_json())


def drawn_to_compare(encoder: str) -> ComparedNetworks:
    """Return the drawn world's networks of an encoder, and as the unseen network the other encoder's classifier."""
    own = drawn_networks(encoder)
    unseen = drawn_classifier("vgg" if encoder == "resnet" else "resnet")
    return ComparedNetworks(encoder=encoder, autoencoder=own.autoencoder, attacked=own.classifier, unseen=unseen)


def compare(networks: ComparedNetworks, device: str, modes: Sequence[Mode], batches: int) -> Comparison:
    """Compute the same batches in fp64, in fp32 and in each mode, and compare.

    Args:
        networks: files of the networks.
        device: device of all of them.
        modes: what is compared.
        batches: number of batches of drawn images.
    """
    loaded = drawn_batches(networks.image_size, batches)
    wanted = dict.fromkeys([EXACT, USUAL, *modes])
    measured = {mode: _measure(networks, device, mode, loaded) for mode in wanted}
    usual = measured[USUAL]
    return Comparison(
        hardware=choose_compute(device, "auto").kind,
        encoder=networks.encoder,
        images=len(usual.correct_N),
        fp64_loss=measured[EXACT].loss,
        fp32_loss=usual.loss,
        fp32_top1=accuracy(usual.correct_N),
        rows=tuple(_beside(mode.name, measured[mode], measured[EXACT], usual) for mode in modes),
    )


def _beside(name: str, found: Measured, exact: Measured, usual: Measured) -> Fidelity:
    near = (found.pixels.short() - exact.pixels.short()).abs() <= 1
    equal = (found.delta_std - exact.delta_std).abs() < MULTIPLIER_TOLERANCE
    top1, interval = float(found.correct_N.mean()), accuracy(usual.correct_N)
    return Fidelity(
        mode=name,
        pixels_near_fp64=float(near.float().mean()),
        multipliers_as_fp64=float(equal.float().mean()),
        loss=found.loss,
        loss_holds=abs(found.loss - usual.loss) <= LOSS_TOLERANCE * abs(usual.loss),
        top1=top1,
        top1_holds=interval.low <= top1 <= interval.high,
        seconds_per_batch=found.seconds_per_batch,
    )


def _measure(networks: ComparedNetworks, device: str, mode: Mode, batches: Batches) -> Measured:
    found, seconds = _perturbed(networks, device, mode, batches)
    pixels = torch.cat([batch.perturbed_N3HW for batch in found])
    return Measured(
        pixels=pixels.flatten(),
        delta_std=torch.cat([batch.delta_std_C for batch in found]),
        loss=float(torch.cat([batch.losses_SN[-1] for batch in found]).mean()),
        correct_N=_unseen_right(networks.unseen, device, found, torch.cat([label for _, label in batches])),
        seconds_per_batch=seconds,
    )


def _perturbed(
    networks: ComparedNetworks, device: str, mode: Mode, batches: Batches
) -> tuple[list[PerturbedBatch], float]:
    """Return all batches perturbed in a mode, and the median seconds of one."""
    config = mode.applied(
        GenerationConfig(
            encoder=networks.encoder,
            source=None,
            autoencoder=str(networks.autoencoder),
            classifier_weights=str(networks.attacked),
            batch_size=BATCH,
            image_size=networks.image_size,
            device=device,
        )
    )
    perturber = load_networks(config, len(SHAPES)).perturber
    assert perturber is not None
    perturber(*batches[0], config.attack)  # The first call warms up: kernels are chosen, or networks compiled.
    found, seconds = [], []
    for image, label in batches:
        start = time.perf_counter()
        found.append(perturber(image, label, config.attack))
        seconds.append(time.perf_counter() - start)
    return found, statistics.median(seconds)


@torch.no_grad()
def _unseen_right(path: Path, device: str, batches: list[PerturbedBatch], label_N: Tensor) -> NDArray[np.bool_]:
    """Return whether another network is right about each perturbed image, as it is stored; always in fp32."""
    compute = choose_compute(device, USUAL.precision)
    network = load_classifier(None, str(path), len(SHAPES)).module.to(compute.device)
    with compute.kernels():
        images = [batch.perturbed_N3HW.to(compute.device, compute.dtype) / PIXEL_MAXIMUM for batch in batches]
        predicted_N = torch.cat([network(image).argmax(1).cpu() for image in images])
    right: NDArray[np.bool_] = (predicted_N == label_N).numpy()
    return right


def drawn_batches(image_size: int, batches: int) -> Batches:
    """Return batches of the drawn world's validation split, spread over it, so that they have all classes."""
    source = DrawnSource("val", image_size)
    loaded = []
    for number in range(batches):
        start = number * (len(source.records) // batches)
        records = source.records[start : start + BATCH]
        image = torch.stack([load_image(source.read(record), record.name, image_size) for record in records])
        loaded.append((image, torch.tensor([record.label for record in records])))
    return loaded


if __name__ == "__main__":
    main()
