"""The cost of a training step: by the paper's formula (section 3.3), and measured on a real step."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

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
    """Return the paper's cost of a step in network passes N (equations 3 and 4; the tables' 2N, 3N, 12N and 24N).

    Args:
        defence: one of `abnn.task.DEFENCES`.
        steps: attack iterations of adversarial training.
    """
    adversarial = PLAIN_PASSES * (steps + 1)
    return {"none": PLAIN_PASSES, "abnn": 3.0, "pgd-at": adversarial, "oudefend": 2 * adversarial}[defence]


def measure_cost(  # noqa: PLR0913 (of what, under which attack, by which formula, on what)
    network: nn.Module,
    plain: nn.Module,
    *,
    pixels: PixelConfig | None,
    formula_passes: float,
    of: str,
    size: Sequence[int],
    batch: int,
    compute: Compute,
) -> Cost:
    """Make real training steps on random images or clips and measure what they cost. Both networks are changed by it.

    Args:
        network: the network with its defence, images -> logits.
        plain: the same target alone.
        pixels: the attack of adversarial training, if that is the defence.
        formula_passes: cost by the paper's formula, in passes N through a network.
        of: see `Cost`.
        size: (H, W) of the images, or (T, H, W) of the clips.
        batch: images or clips a step.
        compute: device and precision.
    """
    image = torch.rand(batch, 3, *size, device=compute.device, dtype=compute.dtype)
    label = torch.arange(batch, device=compute.device) % 2
    step = _Step(DefenceLoss(network, pixels), image, label, compute)
    plain_step = _Step(DefenceLoss(plain, None), image, label, compute)
    with compute.kernels():
        # The first step of each, which is counted, also warms up.
        flops, plain_flops = operations(step), operations(plain_step)
        seconds = [(step.seconds(), plain_step.seconds()) for _ in range(_ROUNDS)]
        with torch.no_grad():
            substitute = network.substitute if isinstance(network, ABNN) else None
            parts = {
                "target_forward": operations(lambda: plain(image)),
                "substitute_forward": 0 if substitute is None else operations(lambda: substitute(image)),
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
        layout = compute.training_layout(trained)
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


def operations(work: Callable[[], Any]) -> int:
    """Return the floating-point operations of convolutions and matrix products in some work: two for each product."""
    with FlopCounterMode(display=False, custom_mapping=_CORRECTED) as counter:
        work()
    return int(counter.get_total_flops())


def _backward_of_convolution(
    gradient: Sequence[int],
    inputs: Sequence[int],
    weight: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    wanted: Sequence[bool],
    **_: Any,
) -> int:
    """Return the operations of a convolution's gradients: each takes the products of the forward pass once.

    torch 2.14 counts those of the weights `groups` times.
    """
    forward = conv_flop_count(list(inputs), list(weight), list(gradient), transposed=transposed)
    return forward * sum(wanted[:2])


_CORRECTED = {torch.ops.aten.convolution_backward: _backward_of_convolution}
