"""Positions of a rectangle, and the search of ROA for the worst one (Wu, Tong & Vorobeychik 2020, section 4).

Legend: N images, H x W pixels; T frames of a video, C candidates. A position is the (row, column) of a rectangle's
upper left pixel: `position_N2` is one for each sample, `position_NT2` one for each frame of each sample. Images are
(N, 3, H, W); videos (N, 3, T, H, W) are taken as well, and one position then holds for all frames unless it is
`position_NT2`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.ascent import LossOf

Size = tuple[int, int]
"""Height and width of a rectangle in pixels."""


@dataclass(frozen=True)
class Trial:
    """A plain rectangle, and the grid of positions at which it is tried."""

    size: Size
    """Height and width of the rectangle in pixels."""
    stride: int
    """Pixels between two rows or columns of the grid, which always has the last ones, too."""
    colour: float
    """Grey of the rectangle."""


def rectangle_mask(image_N3HW: Tensor, position_N2: Tensor, size: Size) -> Tensor:
    """Return a mask that is True inside the rectangles, and can be broadcast over the images.

    Args:
        image_N3HW: images or videos, of which only shape and device are used.
        position_N2: one position for each sample, or for each frame.
        size: size of the rectangles.
    """
    height, width = image_N3HW.shape[-2:]
    rows = _within(position_N2[..., 0, None], size[0], torch.arange(height, device=position_N2.device))
    columns = _within(position_N2[..., 1, None], size[1], torch.arange(width, device=position_N2.device))
    mask = (rows[..., :, None] & columns[..., None, :]).unsqueeze(1)
    return mask if mask.ndim == image_N3HW.ndim else mask.unsqueeze(2)


def _within(first: Tensor, length: int, index: Tensor) -> Tensor:
    return (first <= index) & (index < first + length)


def exhaustive(loss_of: LossOf, image_N3HW: Tensor, trial: Trial) -> Tensor:
    """Return the position on the grid at which a plain rectangle makes each sample's loss largest, (N, 2).

    One forward pass for each position; only the worst so far is kept. Of equals, the first in reading order.
    """
    count, device = len(image_N3HW), image_N3HW.device
    positions = (torch.tensor(position, device=device).expand(count, 2) for position in _grid(image_N3HW, trial))
    return _most_harmful(loss_of, image_N3HW, trial, positions)


def by_gradient(loss_of: LossOf, image_N3HW: Tensor, trial: Trial, candidates: int) -> Tensor:
    """Return the position at which a plain rectangle makes the loss largest, among candidates of the grid, (N, 2).

    The candidates are the windows with the largest sum of squared gradients at the clean image. One forward and
    backward pass, and one forward pass for each candidate. Of equals, the one with the larger sum, then reading order.
    """
    positions_M2 = torch.tensor(list(_grid(image_N3HW, trial)), device=image_N3HW.device)
    sums_NHW = _window_sums(_energy(loss_of, image_N3HW), trial.size)
    sums_NM = sums_NHW[:, positions_M2[:, 0], positions_M2[:, 1]]
    # A stable sort: topk would promise no order among equals.
    ranked_NC = sums_NM.argsort(dim=1, descending=True, stable=True)[:, :candidates]
    return _most_harmful(loss_of, image_N3HW, trial, positions_M2[ranked_NC].unbind(1))


def at_random(image_N3HW: Tensor, size: Size) -> Tensor:
    """Return positions drawn uniformly from all that fit, from torch's global generator.

    One for each image, (N, 2); of a video, one for each frame, (N, T, 2).
    """
    shape = (len(image_N3HW), *image_N3HW.shape[2:-2])
    last_rows, last_columns = _last(image_N3HW, size)
    rows = torch.randint(last_rows + 1, shape, device=image_N3HW.device)
    return torch.stack([rows, torch.randint(last_columns + 1, shape, device=image_N3HW.device)], dim=-1)


@torch.no_grad()
def _most_harmful(loss_of: LossOf, image_N3HW: Tensor, trial: Trial, positions: Iterable[Tensor]) -> Tensor:
    best_N2 = torch.zeros(len(image_N3HW), 2, dtype=torch.long, device=image_N3HW.device)
    most_N = torch.full((len(image_N3HW),), -torch.inf, device=image_N3HW.device)
    for position_N2 in positions:
        loss_N = loss_of(image_N3HW.masked_fill(rectangle_mask(image_N3HW, position_N2, trial.size), trial.colour))
        better_N = loss_N > most_N
        best_N2 = torch.where(better_N[:, None], position_N2, best_N2)
        most_N = torch.where(better_N, loss_N, most_N)
    return best_N2


def _grid(image_N3HW: Tensor, trial: Trial) -> Iterator[tuple[int, int]]:
    last_row, last_column = _last(image_N3HW, trial.size)
    columns = _grid_lines(last_column, trial.stride)
    return ((row, column) for row in _grid_lines(last_row, trial.stride) for column in columns)


def _grid_lines(last: int, stride: int) -> list[int]:
    return sorted({*range(0, last + 1, stride), last})


def _last(image_N3HW: Tensor, size: Size) -> tuple[int, int]:
    height, width = image_N3HW.shape[-2:]
    return height - size[0], width - size[1]


def _energy(loss_of: LossOf, image_N3HW: Tensor) -> Tensor:
    leaf = image_N3HW.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss_of(leaf).sum(), leaf)
    slope = gradient.to(torch.promote_types(gradient.dtype, torch.float32)).flatten(1, -3)
    # Where the network is confident, gradients are so small that their squares would all be 0.
    largest = slope.abs().amax(dim=(1, 2, 3), keepdim=True)
    return (slope / largest.clamp(min=torch.finfo(slope.dtype).tiny)).square().sum(1)


def _window_sums(energy_NHW: Tensor, size: Size) -> Tensor:
    # Not as differences of running sums, in which small windows beside large ones lose all their digits.
    return F.avg_pool2d(energy_NHW[:, None], size, stride=1, divisor_override=1)[:, 0]
