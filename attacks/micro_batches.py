"""Batches that are too large for one pass of a network: computed part by part, with the same result for each sample.

An attack draws its random numbers for the whole batch, so that they do not depend on the size of the parts. Each
prediction must depend on its own sample alone: no layer may use statistics of the batch.

Legend: N samples of the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attacks.ascent import LossOf
from basics.errors import UserError

PartLoss = Callable[[Tensor, slice], Tensor]
"""(part of a batch of images or clips, which of the batch's samples it has) -> loss of each of these."""


def require_micro_batch(size: int | None) -> None:
    """Refuse a size that is no number of samples; None is a batch in one part.

    Raises:
        UserError: see above.
    """
    if size is not None and size < 1:
        raise UserError(f"The micro-batch is {size}; give 1 or more.")


def micro_batches(count: int, size: int | None) -> list[slice]:
    """Return the parts of a batch of `count` samples: at most `size` in each; None: all in one."""
    step = max(1, count if size is None else size)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def in_micro_batches(loss_of: PartLoss, size: int | None) -> LossOf:
    """Return the loss of a batch, computed for at most `size` samples at a time.

    Only one part's activations are in memory. Where a gradient is wanted, the forward pass computes it as well, part by
    part, and the backward pass only hands it on: no pass is carried out twice. Gradients reach the images alone, not
    the weights, and only once.

    Args:
        loss_of: loss of a part's samples.
        size: most samples in a part; None computes the batch as a whole.
    """

    def loss_of_batch(image_N3HW: Tensor) -> Tensor:
        parts = micro_batches(len(image_N3HW), size)
        if len(parts) < 2:
            return loss_of(image_N3HW, slice(0, len(image_N3HW)))
        if torch.is_grad_enabled() and image_N3HW.requires_grad:
            loss_N: Tensor = _LossWithGradient.apply(image_N3HW, loss_of, parts)
            return loss_N
        return torch.cat([loss_of(image_N3HW[part], part) for part in parts])

    return loss_of_batch


def outputs_in_micro_batches(function: Callable[[Tensor], Tensor], size: int | None) -> Callable[[Tensor], Tensor]:
    """Return a function of a batch that is computed for at most `size` samples at a time, without gradients.

    Args:
        function: samples -> outputs, one for each.
        size: most samples in a part; None computes the batch as a whole.
    """

    @torch.no_grad()
    def outputs_of(image_N3HW: Tensor) -> Tensor:
        parts = micro_batches(len(image_N3HW), size)
        return function(image_N3HW) if len(parts) < 2 else torch.cat([function(image_N3HW[part]) for part in parts])

    return outputs_of


class _LossWithGradient(torch.autograd.Function):
    """Loss of each sample; the gradients are computed with it, and kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, image_N3HW: Tensor, loss_of: PartLoss, parts: Sequence[slice]) -> Tensor:
        losses: list[Tensor] = []
        gradients: list[Tensor] = []
        for part in parts:
            leaf = image_N3HW[part].detach().requires_grad_()
            with torch.enable_grad():
                # A view, because torch's FLOP counter cannot follow gradients of a leaf that is a module's input.
                loss = loss_of(leaf.view_as(leaf), part)
                gradients += torch.autograd.grad(loss.sum(), leaf)
            losses.append(loss.detach())
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * slope_N.to(gradient.dtype).view(-1, *[1] * (gradient.ndim - 1)), None, None
