"""The cost of a training step: by the paper's formula (section 3.3), and measured on a real step."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.flop_counter import FlopCounterMode

from abnn.network import ABNN
from abnn.results import PLAIN_PASSES
from abnn.task import DefenceLoss
from attacks.pixels import PixelConfig
from basics.compute import Compute

_ROUNDS = 3
_SMALL_LR = 1e-4


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one training step beside that of a plain step of the same target on the same batch."""

    passes: float
    """By the paper's formula, in passes N through a network."""
    flops_step: float
    """Floating-point operations of convolutions and matrix products in one real step."""
    flops_plain_step: float
    """Floating-point operations of the plain step."""
    seconds_step: float
    """Shortest time of a step over some rounds, in which it was measured in turn with the plain step."""
    seconds_plain_step: float
    """Shortest time of the plain step."""
    batch: int
    """Images a step."""
    device: str
    """Kind of hardware."""
    of: str
    """Checksum over what was measured: defence, networks, attack, batch."""
    parts: dict[str, float]
    """FLOPs of one forward pass through the target and the substitute, and of the target's backward pass."""


def passes(defence: str, steps: int) -> float:
    """Return the paper's cost of a step in network passes N (equations 3 and 4; the tables' 2N, 3N and 12N).

    Args:
        defence: one of `abnn.task.DEFENCES`.
        steps: attack iterations of adversarial training.
    """
    return {"none": PLAIN_PASSES, "abnn": 3.0, "pgd-at": PLAIN_PASSES * (steps + 1)}[defence]


def measure_cost(  # noqa: PLR0913 (of what, under which attack, by which formula, on what)
    network: nn.Module,
    plain: nn.Module,
    *,
    pixels: PixelConfig | None,
    formula_passes: float,
    of: str,
    image_size: int,
    batch: int,
    compute: Compute,
) -> Cost:
    """Make real training steps on random images and measure what they cost. Both networks are changed by it.

    Args:
        network: the network with its defence, images -> logits.
        plain: the same target alone.
        pixels: the attack of adversarial training, if that is the defence.
        formula_passes: cost by the paper's formula, in passes N through a network.
        of: see `Cost`.
        image_size: side of the images, in pixels.
        batch: images a step.
        compute: device and precision.
    """
    image = torch.rand(batch, 3, image_size, image_size, device=compute.device, dtype=compute.dtype)
    label = torch.arange(batch, device=compute.device) % 2
    step = _Step(DefenceLoss(network, pixels), image, label, compute)
    plain_step = _Step(DefenceLoss(plain, None), image, label, compute)
    with compute.kernels():
        # The first step of each, which is counted, also warms up.
        flops, plain_flops = _flops(step), _flops(plain_step)
        seconds = [(step.seconds(), plain_step.seconds()) for _ in range(_ROUNDS)]
        with torch.no_grad():
            substitute = network.substitute if isinstance(network, ABNN) else None
            parts = {
                "target_forward": _flops(lambda: plain(image)),
                "substitute_forward": 0 if substitute is None else _flops(lambda: substitute(image)),
            }
    return Cost(
        passes=formula_passes,
        of=of,
        flops_step=flops,
        flops_plain_step=plain_flops,
        seconds_step=min(each for each, _ in seconds),
        seconds_plain_step=min(each for _, each in seconds),
        batch=batch,
        device=compute.kind,
        parts={**parts, "plain_backward": plain_flops - parts["target_forward"]},
    )


class _Step:
    """One training step, again and again on the same batch."""

    def __init__(self, trained: DefenceLoss, image: Tensor, label: Tensor, compute: Compute) -> None:
        layout = compute.training_layout
        self.trained = trained.to(compute.device, compute.dtype).to(memory_format=layout).train()
        self.image, self.label, self.compute = image.contiguous(memory_format=layout), label, compute
        learning = [weight for weight in trained.parameters() if weight.requires_grad]
        self.optimizer = SGD(learning, lr=_SMALL_LR)

    def __call__(self) -> None:
        with self.compute.autocast():
            loss = self.trained(self.image, self.label)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def seconds(self) -> float:
        self._wait()
        start = time.perf_counter()
        self()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize(self.compute.device)


def _flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
