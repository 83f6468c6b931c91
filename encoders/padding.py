"""Padding by one position, with a backward pass that gives the same bits every time.

torch's ReflectionPad2d and ReplicationPad2d add their gradients atomically on CUDA devices, in no fixed order; a sign
decides each step of the ascent, so that noise would reach the data set. Here they are added in a fixed order, and both
passes write each position once, but for the border.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def memory_format_of(image_NCHW: Tensor) -> torch.memory_format:
    """Return the layout of an image batch, which what is computed of it should have as well."""
    last = image_NCHW.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not image_NCHW.is_contiguous() else torch.contiguous_format


class _PadByOne(torch.autograd.Function):
    """Pad by the rows and columns `first` and `-1 - first` of the image: 0 replicates the border, 1 mirrors at it."""

    @staticmethod
    def forward(ctx: Any, image_NCHW: Tensor, first: int) -> Tensor:
        ctx.first, ctx.layout = first, memory_format_of(image_NCHW)
        batch, channels, height, width = image_NCHW.shape
        padded = torch.empty(
            (batch, channels, height + 2, width + 2),
            dtype=image_NCHW.dtype, device=image_NCHW.device, memory_format=ctx.layout,
        )  # fmt: skip
        padded[:, :, 1:-1, 1:-1] = image_NCHW
        padded[:, :, 1:-1, 0] = image_NCHW[..., first]
        padded[:, :, 1:-1, -1] = image_NCHW[..., -1 - first]
        # Rows of the padded image, so that the corners come with them.
        padded[:, :, 0] = padded[:, :, 1 + first]
        padded[:, :, -1] = padded[:, :, -2 - first]
        return padded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_NCHW: Tensor) -> tuple[Tensor, None]:
        first = ctx.first
        tall = slope_NCHW[..., 1:-1].clone(memory_format=ctx.layout)
        tall[..., first] += slope_NCHW[..., 0]
        tall[..., -1 - first] += slope_NCHW[..., -1]
        gradient = tall[:, :, 1:-1]
        gradient[:, :, first] += tall[:, :, 0]
        gradient[:, :, -1 - first] += tall[:, :, -1]
        return gradient, None


def reflect_by_one(image_NCHW: Tensor) -> Tensor:
    """Pad (N, C, H, W) to (N, C, H + 2, W + 2), mirrored at the border position (`mode="reflect"`)."""
    padded: Tensor = _PadByOne.apply(image_NCHW, 1)
    return padded


def replicate_by_one(image_NCHW: Tensor) -> Tensor:
    """Pad (N, C, H, W) to (N, C, H + 2, W + 2) with copies of the border (`mode="replicate"`)."""
    padded: Tensor = _PadByOne.apply(image_NCHW, 0)
    return padded


class ReflectionPad(nn.Module):
    """`reflect_by_one` as a layer."""

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Pad by one position."""
        return reflect_by_one(image_NCHW)
