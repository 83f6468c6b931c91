"""The one loop under every attack: where to start, how to step, how to project.

Legend: N samples of the batch, S steps.
"""

from collections.abc import Callable, Sequence
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


Objective = Callable[[Parameters], ObjectiveValue[Extra]]
"""What is maximised, of a batch or of a part of it."""
Values = tuple[ObjectiveValue[Extra], ...]
"""The values of all objectives of an ascent at one point, in their order."""


@dataclass(frozen=True)
class AscentResult(Generic[Extra]):
    """Start and end of an ascent."""

    parameters: Parameters
    """The parameters after the last step."""
    losses_SN: Tensor
    """Loss of each sample before the first step and after each step: (steps + 1, N)."""
    first: Values[Extra]
    """The objectives' values at the start, detached."""
    last: Values[Extra]
    """The objectives' values at the end, detached; the same object as `first` if there were no steps."""


def maximise(
    objectives: Sequence[Objective[Extra]],
    threat: ThreatModel,
    steps: int,
    watch: Callable[[Values[Extra]], None] | None = None,
) -> Parameters:
    """Maximise the sum of `objectives` by `steps` steps of `threat`; return the parameters after the last one.

    Each step costs one forward and backward pass of each objective. Only the parameters get gradients: the networks
    inside the objectives must not require any. The sum over samples is maximised, not the mean, so that a last,
    smaller batch sees gradients of the same scale.

    Parameters that all samples share, such as AdvBN's multipliers, are found with little memory by one objective for
    each part of the batch: its activations are freed before the next part's are computed. The parts' gradients are
    added in their order and in float64, so that only the networks' own rounding can make a step differ from that of
    the whole batch. Where every sample has parameters of its own, see `attacks.micro_batches`.

    Args:
        objectives: what is maximised; several are the parts of one batch, in order.
        threat: where to start, how to step, how to project.
        steps: number of steps.
        watch: called with the objectives' values at the beginning of each step.
    """
    parameters = threat.start()
    for _ in range(steps):
        leaves = tuple(parameter.detach().requires_grad_() for parameter in parameters)
        values, gradients = _values_and_gradients(objectives, leaves)
        if watch is not None:
            watch(values)
        with torch.no_grad():
            parameters = threat.project(threat.step(parameters, gradients))
    return parameters


def _values_and_gradients(
    objectives: Sequence[Objective[Extra]], leaves: Parameters
) -> tuple[Values[Extra], Parameters]:
    """Return each objective's value, and the gradients of the sum of all."""
    values: list[ObjectiveValue[Extra]] = []
    total: Parameters = ()
    for objective in objectives:
        with torch.enable_grad():
            value = objective(leaves)
            gradients: Parameters = torch.autograd.grad(value.loss_N.sum(), leaves)
        values.append(ObjectiveValue(value.loss_N.detach(), value.extra))
        if len(objectives) > 1:
            gradients = tuple(_widest(gradient) for gradient in gradients)
        total = tuple(a + b for a, b in zip(total, gradients, strict=True)) if total else gradients
    return tuple(values), total


def _widest(value: Tensor) -> Tensor:
    """Return a tensor in float64, where its device has that."""
    return value if value.device.type == "mps" else value.double()


def of_images(loss_of: LossOf) -> Objective[None]:
    """Return the objective of an attack whose only parameter is the batch of images itself."""

    def objective(parameters: Parameters) -> ObjectiveValue[None]:
        return ObjectiveValue(loss_of(parameters[0]), None)

    return objective


def ascend(objectives: Sequence[Objective[Extra]], threat: ThreatModel, steps: int) -> AscentResult[Extra]:
    """Do what `maximise` does, and also return the first and last values and all losses; one more forward pass."""
    first: list[Values[Extra]] = []
    losses: list[Tensor] = []

    def watch(values: Values[Extra]) -> None:
        losses.append(torch.cat([value.loss_N for value in values]))
        if not first:
            first.append(values)

    parameters = maximise(objectives, threat, steps, watch)
    with torch.no_grad():
        last = tuple(objective(parameters) for objective in objectives)
    losses.append(torch.cat([value.loss_N for value in last]))
    return AscentResult(parameters, torch.stack(losses), (first or [last])[0], last)
