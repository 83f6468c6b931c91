"""The one loop under every attack: where to start, how to step, how to project.

Legend: N samples of the batch, S steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from basics.errors import UserError

Parameters = tuple[Tensor, ...]
LossOf = Callable[[Tensor], Tensor]
"""image_N3HW -> loss_N; closes over the labels and the network, which must be in evaluation mode."""
Extra = TypeVar("Extra")


class ThreatModel(Protocol):
    """What an attacker may move, and how far: any object with these three methods is one.

    Parameters are tuples of floating-point tensors of any shapes, on any device.

    Example:
        >>> import torch
        >>> from advbn_gen import ThreatModel
        >>> class Brightness:  # a factor for each of 8 images, between 0.5 and 1.5
        ...     def start(self):
        ...         return (torch.ones(8, 1, 1, 1),)
        ...     def step(self, parameters, gradients):
        ...         return (parameters[0] + 0.1 * gradients[0].sign(),)
        ...     def project(self, parameters):
        ...         return (parameters[0].clamp(0.5, 1.5),)
        >>> threat: ThreatModel = Brightness()
        >>> [parameter.shape for parameter in threat.start()]
        [torch.Size([8, 1, 1, 1])]
    """

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
    """Value of an objective at one point.

    Attributes:
        loss_N: loss of each sample, (N,); the ascent is on their sum.
        extra: what else the forward pass computed and the caller needs from the first and the last one, such as
            images or logits; None if nothing.

    Example:
        >>> import torch
        >>> from torch.nn.functional import cross_entropy
        >>> from advbn_gen import ObjectiveValue
        >>> logits, label = torch.rand(4, 10), torch.tensor([3, 1, 4, 1])
        >>> value = ObjectiveValue(cross_entropy(logits, label, reduction="none"), extra=logits.argmax(1))
        >>> value.loss_N.shape, value.extra.shape
        (torch.Size([4]), torch.Size([4]))
    """

    loss_N: Tensor
    extra: Extra


Objective = Callable[[Parameters], ObjectiveValue[Extra]]
"""What is maximised, of a batch or of a part of it."""
Values = tuple[ObjectiveValue[Extra], ...]
"""The values of all objectives of an ascent at one point, in their order."""


@dataclass(frozen=True)
class AscentResult(Generic[Extra]):
    """Start and end of an ascent, as `ascend` returns them.

    Attributes:
        parameters: the parameters after the last step.
        losses_SN: loss of each sample before the first step and after each step, (steps + 1, N).
        first: the objectives' values at the start, detached.
        last: the objectives' values at the end, detached; the same object as `first` if there were no steps.

    Example:
        >>> import torch
        >>> from advbn_gen import AscentResult, ObjectiveValue
        >>> start, end = (ObjectiveValue(torch.full((4,), loss), None) for loss in (1.0, 2.0))
        >>> result = AscentResult((torch.ones(4),), torch.stack([start.loss_N, end.loss_N]), (start,), (end,))
        >>> result.losses_SN[-1] > result.losses_SN[0]  # which samples' loss has grown
        tensor([True, True, True, True])
    """

    parameters: Parameters
    losses_SN: Tensor
    first: Values[Extra]
    last: Values[Extra]


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
    """Increase the sum of objectives within a threat model, and return where that led and the losses on the way.

    AdvBN (paper section 3), PGD and ROA are this loop with other threat models. Each step costs one forward and
    backward pass of each objective, and the end one more forward pass. Only the parameters get gradients: networks
    inside the objectives should be in evaluation mode and not require any.

    Args:
        objectives: parameters -> `ObjectiveValue`, such as the loss of a network on changed images; several are the
            parts of one batch, in order, whose gradients are added.
        threat: where to start, how to step, how to come back into the allowed set.
        steps: number of steps, 0 or more.

    Raises:
        UserError: there is no objective, the number of steps is negative, or a loss is not one number a sample.

    Example:
        >>> import torch
        >>> from advbn_gen import ObjectiveValue, ascend
        >>> class Within1:  # each of 4 numbers in [-1, 1], by steps of 0.5 along the sign of the gradient
        ...     start = lambda self: (torch.zeros(4),)
        ...     step = lambda self, parameters, gradients: (parameters[0] + 0.5 * gradients[0].sign(),)
        ...     project = lambda self, parameters: (parameters[0].clamp(-1, 1),)
        >>> result = ascend([lambda parameters: ObjectiveValue(3 * parameters[0], None)], Within1(), steps=5)
        >>> result.parameters, result.losses_SN.shape
        ((tensor([1., 1., 1., 1.]),), torch.Size([6, 4]))
    """
    if not objectives:
        raise UserError("There is no objective; give a list of one or more.")
    if steps < 0:
        raise UserError(f"The number of steps is {steps}; give 0 or more.")
    first: list[Values[Extra]] = []
    losses: list[Tensor] = []

    def watch(values: Values[Extra]) -> None:
        losses.append(_losses(values))
        if not first:
            first.append(values)

    parameters = maximise(objectives, threat, steps, watch)
    with torch.no_grad():
        last = tuple(objective(parameters) for objective in objectives)
    losses.append(_losses(last))
    return AscentResult(parameters, torch.stack(losses), (first or [last])[0], last)


def _losses(values: Values[Extra]) -> Tensor:
    """Return the losses of all samples of a batch, from the values of its parts."""
    for value in values:
        if value.loss_N.ndim != 1:
            raise UserError(
                f"An objective has a loss of the shape {tuple(value.loss_N.shape)}; give one number a sample, (N,), as "
                'of torch\'s losses with reduction="none".'
            )
    return torch.cat([value.loss_N for value in values])
