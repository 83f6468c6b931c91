"""Runs the sanity checks on a trained network and test images, from a validated request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from abnn.benchmarks import Benchmark, benchmark_of
from abnn.checkpoint import load_checkpoint
from abnn.images import images_for, open_test
from abnn.named_attacks import STRONG_STEPS, Transfer, require_another
from abnn.sanity import Check, Surface, check, loss_surface
from basics.compute import choose_compute
from basics.errors import UserError
from training.config import require_seed
from training.evaluation import batched

SURFACES = 4
"""Images whose loss surface is drawn."""


@dataclass(frozen=True, kw_only=True)
class SanityRequest:
    """Request of `abnn sanity`: a trained network and test images."""

    checkpoint: Path
    """Run folder of `abnn train`."""
    data: str
    """Address of what holds the test images."""
    benchmarks: Mapping[str, Benchmark]
    """Known benchmarks by name, of which the checkpoint names one."""
    surrogate: Path | None = None
    """Run folder of the network whose gradients the black-box check uses; None leaves that check out."""
    limit: int = 100
    """Only this many images, evenly spread over the test set: all are in memory at once."""
    seed: int = 0
    """Seed of random starts and noise."""
    device: str = "auto"
    """Device, see `basics.compute`."""
    precision: str = "auto"
    """Precision, see `basics.compute`."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise UserError(f"--limit is {self.limit}; give 1 or more.")
        require_seed(self.seed)


def run_sanity_checks(request: SanityRequest, ready: Callable[[], None] = lambda: None) -> tuple[list[Check], Surface]:
    """Return the outcome of each check, and the loss around a few images.

    Args:
        request: network and images.
        ready: called when the request was found to be valid, before the work.

    Raises:
        UserError: something in the request does not exist or does not fit.
    """
    compute = choose_compute(request.device, request.precision)
    checkpoint = load_checkpoint(request.checkpoint)
    surrogate = None if request.surrogate is None else load_checkpoint(request.surrogate)
    pixels = benchmark_of(checkpoint.task, request.benchmarks).pixels
    images = images_for(checkpoint, open_test(request.data), request.limit, surrogate)
    transfer = None
    if surrogate is not None:
        require_another(checkpoint, surrogate)
        transfer = Transfer(config=replace(pixels, steps=STRONG_STEPS), surrogate=surrogate)
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
