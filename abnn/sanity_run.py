"""Runs the sanity checks on a trained network and test images, from a validated request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from abnn.benchmarks import Benchmark, benchmark_of
from abnn.checkpoint import load_checkpoint
from abnn.images import HeldOut, open_test_for, require_fitting, require_unseen
from abnn.named_attacks import STRONG_STEPS, Transfer, require_another, require_own_predictions
from abnn.options import HeldOutOptions
from abnn.sanity import Check, Surface, check, loss_surface
from attacks.micro_batches import require_micro_batch
from basics.compute import choose_compute
from basics.errors import UserError
from basics.memory import enough_memory
from networks.recomputation import recompute_activations
from training.config import require_seed
from training.evaluation import CLIP_BATCH, batched

SURFACES = 4
"""Images whose loss surface is drawn."""


@dataclass(frozen=True, kw_only=True)
class SanityRequest:
    """Request of `abnn sanity`: a trained network and test images."""

    checkpoint: Path
    """Run folder of `abnn train`."""
    data: str | None
    """Address of what holds the test images, or clips; None for drawn clips."""
    benchmarks: Mapping[str, Benchmark]
    """Known benchmarks by name, of which the checkpoint names one."""
    surrogate: Path | None = None
    """Run folder of the network whose gradients the black-box check uses; None leaves that check out."""
    clips: HeldOutOptions = field(default_factory=HeldOutOptions)
    """How test clips are found and kept."""
    limit: int = 100
    """Only this many images, evenly spread over the test set: all are in memory at once."""
    micro_batch: int | None = None
    """Most images in one pass of the network, which changes no result; None passes all images, or a few clips (see
    `training.evaluation`)."""
    seed: int = 0
    """Seed of random starts and noise."""
    device: str = "auto"
    """Device, see `basics.compute`."""
    precision: str = "auto"
    """Precision, see `basics.compute`."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise UserError(f"--limit is {self.limit}; give 1 or more.")
        require_micro_batch(self.micro_batch)
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
    networks = [checkpoint, *([surrogate] if surrogate else [])]
    data = HeldOut(open_test_for(networks, request.data, request.clips), request.limit, request.clips.cache)
    require_unseen([checkpoint], request.data, request.clips)
    if request.clips.checkpoint_activations:
        for each in networks:
            recompute_activations(each.module)
    require_fitting(checkpoint, data.source, surrogate)
    require_own_predictions(checkpoint, request.micro_batch)
    micro_batch = request.micro_batch
    if micro_batch is None and checkpoint.plan.frames is not None and not checkpoint.plan.uses_batch_statistics:
        micro_batch = CLIP_BATCH
    transfer = None
    if surrogate is not None:
        require_another(checkpoint, surrogate)
        transfer = Transfer(config=replace(pixels, steps=STRONG_STEPS), surrogate=surrogate)
    images = data.for_plan(checkpoint.plan)
    ready()
    network = checkpoint.module.to(compute.device, compute.dtype)
    image, label = next(batched(images, request.limit))
    image_N3HW = image.to(compute.device, compute.dtype) / 255
    label_N = label.to(compute.device)
    torch.manual_seed(request.seed)
    less = "a smaller --micro-batch or --limit needs less"
    with compute.kernels(), compute.autocast(), enough_memory(less):
        checks = check(network, image_N3HW, label_N, pixels, transfer, micro_batch)
        chosen = torch.linspace(0, len(label_N) - 1, min(SURFACES, len(label_N))).long()
        surface = loss_surface(network, image_N3HW[chosen], label_N[chosen], pixels, micro_batch)
    return checks, surface
