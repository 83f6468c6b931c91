"""The sanity checks of a trained network on test images."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from abnn.checkpoint import load_checkpoint
from abnn.images import shown_images
from abnn.sanity import Check, Surface, check, loss_surface
from abnn.tasks import task_of
from abnn.threats import STRONG_STEPS, Transfer
from basics.compute import choose_compute
from basics.errors import UserError
from networks.fitting import batched
from sources.opening import open_source

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


def examine(request: ExaminationRequest) -> tuple[list[Check], Surface]:
    """Return what came of each check, and the loss around a few images.

    Raises:
        UserError: something that was asked for does not exist or does not fit.
    """
    if request.limit < 1:
        raise UserError(f"--limit is {request.limit}; give 1 or more.")
    compute = choose_compute(request.device, request.precision)
    checkpoint = load_checkpoint(request.checkpoint)
    twin = None if request.twin is None else load_checkpoint(request.twin)
    task = task_of(checkpoint.task)
    images = shown_images(checkpoint, open_source(request.data, split="test"), request.limit, twin)
    transfer = None
    if twin is not None:
        transfer = Transfer(config=replace(task.pixels, steps=STRONG_STEPS), twin=twin)
    network = checkpoint.module.to(compute.device, compute.dtype)
    image, label = next(batched(images, request.limit))
    image_N3HW = image.to(compute.device, compute.dtype) / 255
    label_N = label.to(compute.device)
    torch.manual_seed(request.seed)
    with compute.kernels(), compute.autocast():
        checks = check(network, image_N3HW, label_N, task.pixels, transfer)
        chosen = torch.linspace(0, len(label_N) - 1, min(SURFACES, len(label_N))).long()
        surface = loss_surface(network, image_N3HW[chosen], label_N[chosen], task.pixels)
    return checks, surface
