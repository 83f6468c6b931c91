"""The four phases of an image of twice the size: windows of the small image, and the results put together again.

The windows of a padded image start at its rows 0 and 1 and its columns 0 and 1; phase (r, c) of the large image is its
rows r, r + 2, ... and its columns c, c + 2, ... Both functions write each position at most once, in the layout of what
they are given, and add gradients in a fixed order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from encoders.padding import memory_format_of

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Row and column of each phase, in the order of the windows."""


class _Windows(torch.autograd.Function):
    """The four windows: views of the image in its own layout, copies in another one."""

    @staticmethod
    def forward(ctx: Any, padded_NCHW: Tensor, layout: torch.memory_format | None) -> tuple[Tensor, ...]:
        ctx.shape, ctx.layout = padded_NCHW.shape, memory_format_of(padded_NCHW)
        seen = tuple(_window(padded_NCHW, phase) for phase in PHASES)
        # A convolution keeps what it is given for its backward pass: of views, that is the image itself.
        return seen if layout is None else tuple(each.contiguous(memory_format=layout) for each in seen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes_NCHW: Tensor) -> tuple[Tensor, None]:
        last = slopes_NCHW[-1]
        total = torch.empty(ctx.shape, dtype=last.dtype, device=last.device, memory_format=ctx.layout).zero_()
        # From the last to the first, as torch adds the gradients of slices.
        for phase, slope_NCHW in zip(reversed(PHASES), reversed(slopes_NCHW), strict=True):
            _window(total, phase).add_(slope_NCHW)
        return total, None


class _Interleaved(torch.autograd.Function):
    """The image whose phases are given."""

    @staticmethod
    def forward(ctx: Any, *phases_NCHW: Tensor) -> Tensor:  # noqa: ARG004 (torch passes it)
        first = phases_NCHW[0]
        batch, channels, height, width = first.shape
        image = torch.empty(
            (batch, channels, 2 * height, 2 * width),
            dtype=first.dtype, device=first.device, memory_format=memory_format_of(first),
        )  # fmt: skip
        for (row, column), phase_NCHW in zip(PHASES, phases_NCHW, strict=True):
            image[:, :, row::2, column::2] = phase_NCHW
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_NCHW: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004 (torch passes it)
        return tuple(slope_NCHW[:, :, row::2, column::2] for row, column in PHASES)


def _window(padded_NCHW: Tensor, phase: tuple[int, int]) -> Tensor:
    (row, column), (height, width) = phase, padded_NCHW.shape[-2:]
    return padded_NCHW[:, :, row : height - 1 + row, column : width - 1 + column]


def windows(padded_NCHW: Tensor, layout: torch.memory_format | None = None) -> tuple[Tensor, ...]:
    """Return the four windows (N, C, H + 1, W + 1) of a padded image (N, C, H + 2, W + 2), in the order of PHASES.

    Args:
        padded_NCHW: the padded image.
        layout: their layout; None for the image's.
    """
    found: tuple[Tensor, ...] = _Windows.apply(padded_NCHW, layout)
    return found


def interleaved(phases_NCHW: tuple[Tensor, ...]) -> Tensor:
    """Return the image (N, C, 2H, 2W) with these phases (N, C, H, W), in the order of PHASES."""
    image: Tensor = _Interleaved.apply(*phases_NCHW)
    return image
