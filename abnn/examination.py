"""The sanity checks of a trained network on test images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from abnn.benchmarks import benchmark_of
from abnn.checkpoint import load_checkpoint
from abnn.images import open_test, shown_images
from abnn.sanity import Check, Surface, check, loss_surface
from abnn.threats import STRONG_STEPS, Transfer, require_another
from basics.compute import choose_compute
from basics.errors import UserError
from training.evaluation import batched

SURFACES = 4
"""Images whose loss surface is drawn."""


@dataclass(frozen=True, kw_only=True)
class ExaminationRequest:
    """What was asked for."""

    checkpoint: Path
    """Run folder of `abnn train`."""
    data: str
    """Address of what holds the test images."""
    twin: Path | None = None
    """Run folder of the network whose gradients stand for a black box; None leaves that check out."""
    limit: int = 100
    """Only so many images, evenly spread: they are looked at all at once."""
    seed: int = 0
    """Of random starts and noise."""
    device: str = "auto"
    """Device, see `basics.compute`."""
    precision: str = "auto"
    """Precision, see `basics.compute`."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise UserError(f"--limit is {self.limit}; give 1 or more.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"The seed is {self.seed}; give a whole number from 0 to 2**32 - 1.")


def examine(request: ExaminationRequest, ready: Callable[[], None] = lambda: None) -> tuple[list[Check], Surface]:
    """Return what came of each check, and the loss around a few images.

    Args:
        request: what was asked for.
        ready: called when all of it was found to fit, before the work.

    Raises:
        UserError: something that was asked for does not exist or does not fit.
    """
    compute = choose_compute(request.device, request.precision)
    checkpoint = load_checkpoint(request.checkpoint)
    twin = None if request.twin is None else load_checkpoint(request.twin)
    pixels = benchmark_of(checkpoint.task).pixels
    images = shown_images(checkpoint, open_test(request.data), request.limit, twin)
    transfer = None
    if twin is not None:
        require_another(checkpoint, twin)
        transfer = Transfer(config=replace(pixels, steps=STRONG_STEPS), twin=twin)
    ready()
    network = checkpoint.module.to(compute.device, compute.dtype)
    image, label = next(batched(images, request.limit))
    image_N3HW = image.to(compute.device, compute.dtype) / 255
    label_N = label.to(compute.device)
    torch.manual_seed(request.seed)
    with compute.kernels(), compute.autocast():
        checks = check(network, image_N3HW, label_N, pixels, transfer)
        chosen = torch.linspace(0, len(label_N) - 1, min(SURFACES, len(label_N))).long()
        surface = loss_surface(network, image_N3HW[chosen], label_N[chosen], pixels)
    return checks, surface
