"""The one loop under every attack: where to start, how to step, how to project.

Legend: N samples of the batch, S steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

Parameters = tuple[Tensor, ...]
LossOf = Callable[[Tensor], Tensor]
"""image_N3HW -> loss_N; closes over the labels and the network, which must be in evaluation mode."""
Extra = TypeVar("Extra")


class ThreatModel(Protocol):
    """What an attacker may move, and how far."""

    def start(self) -> Parameters:
        """Return the parameters before the first step."""
        ...

    def step(self, parameters: Parameters, gradients: Parameters) -> Parameters:
        """Move the parameters so that the loss grows."""
        ...

    def project(self, parameters: Parameters) -> Parameters:
        """Bring moved parameters back into the allowed set."""
        ...


@dataclass(frozen=True)
class ObjectiveValue(Generic[Extra]):
    """Value of an objective at one point."""

    loss_N: Tensor
    """Loss of each sample; the ascent is on their sum."""
    extra: Extra
    """What else the forward pass computed and the caller needs from the first and the last one (images, logits)."""


@dataclass(frozen=True)
class AscentResult(Generic[Extra]):
    """Start and end of an ascent."""

    parameters: Parameters
    """The parameters after the last step."""
    losses_SN: Tensor
    """Loss of each sample before the first step and after each step: (steps + 1, N)."""
    first: ObjectiveValue[Extra]
    """The objective's value at the start, detached."""
    last: ObjectiveValue[Extra]
    """The objective's value at the end, detached; the same object as `first` if there were no steps."""


def climb(
    objective: Callable[[Parameters], ObjectiveValue[Extra]],
    threat: ThreatModel,
    steps: int,
    watch: Callable[[ObjectiveValue[Extra]], None] | None = None,
) -> Parameters:
    """Climb `objective` for `steps` steps of `threat` and return the parameters after the last one.

    Costs `steps` forward and backward passes. Only the parameters get gradients: the networks inside the objective must
    not require any. The sum over samples is climbed, not the mean, so that a last, smaller batch sees gradients of the
    same scale.

    Args:
        objective: what is maximised.
        threat: where to start, how to step, how to project.
        steps: number of steps.
        watch: called with the objective's value at the beginning of each step.
    """
    parameters = threat.start()
    for _ in range(steps):
        leaves = tuple(parameter.detach().requires_grad_() for parameter in parameters)
        with torch.enable_grad():
            value = objective(leaves)
            gradients = torch.autograd.grad(value.loss_N.sum(), leaves)
        if watch is not None:
            watch(ObjectiveValue(value.loss_N.detach(), value.extra))
        with torch.no_grad():
            parameters = threat.project(threat.step(parameters, gradients))
    return parameters


def of_images(loss_of: LossOf) -> Callable[[Parameters], ObjectiveValue[None]]:
    """Return the objective of an attack whose only parameter is the batch of images itself."""

    def objective(parameters: Parameters) -> ObjectiveValue[None]:
        return ObjectiveValue(loss_of(parameters[0]), None)

    return objective


def ascend(
    objective: Callable[[Parameters], ObjectiveValue[Extra]], threat: ThreatModel, steps: int
) -> AscentResult[Extra]:
    """Climb as `climb` does, and also return the first and last value and all losses; one more forward pass."""
    first: list[ObjectiveValue[Extra]] = []
    losses: list[Tensor] = []

    def watch(value: ObjectiveValue[Extra]) -> None:
        losses.append(value.loss_N)
        if not first:
            first.append(value)

    parameters = climb(objective, threat, steps, watch)
    with torch.no_grad():
        last = objective(parameters)
    losses.append(last.loss_N)
    return AscentResult(parameters, torch.stack(losses), (first or [last])[0], last)
