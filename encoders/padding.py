"""Padding by one position, with a backward pass that gives the same bits every time.

torch's ReflectionPad2d and ReplicationPad2d add their gradients atomically on CUDA devices, in no fixed order; a
sign decides each step of the ascent, so that noise would reach the data set. Concatenated slices add their
gradients in a fixed order.
"""

import torch
from torch import Tensor, nn


def _pad_by_one(image_NCHW: Tensor, first: int) -> Tensor:
    last = -1 - first
    rows = (image_NCHW[:, :, first, None], image_NCHW, image_NCHW[:, :, last, None])
    tall = torch.cat(rows, dim=2)
    return torch.cat((tall[..., first, None], tall, tall[..., last, None]), dim=3)


def reflect_by_one(image_NCHW: Tensor) -> Tensor:
    """Pad (N, C, H, W) to (N, C, H + 2, W + 2), mirrored at the border position (`mode="reflect"`)."""
    return _pad_by_one(image_NCHW, 1)


def replicate_by_one(image_NCHW: Tensor) -> Tensor:
    """Pad (N, C, H, W) to (N, C, H + 2, W + 2) with copies of the border (`mode="replicate"`)."""
    return _pad_by_one(image_NCHW, 0)


class ReflectionPad(nn.Module):
    """`reflect_by_one` as a layer."""

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Pad by one position."""
        return reflect_by_one(image_NCHW)
