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
    ranked_NC2 = _ranked(_energy(loss_of, image_N3HW), trial, candidates)
    return _most_harmful(loss_of, image_N3HW, trial, ranked_NC2.unbind(1))


def by_gradient_in_frames(loss_of: LossOf, video_N3THW: Tensor, trial: Trial, candidates: int) -> Tensor:
    """Return positions at which plain rectangles, one in each frame, make the loss large, (N, T, 2).

    Each frame's candidates are the windows with the largest sum of squared gradients in this frame. All frames start
    at their first candidate. Then the frames are gone through in order: a frame's other candidates are tried while the
    rectangles of all other frames stay where they are, and the worst is kept. One forward and backward pass, and
    1 + T (C - 1) forward passes. Of equals, the one with the larger sum, then reading order.
    """
    energy_NTHW = _energy(loss_of, video_N3THW, per_frame=True)
    ranked_NTC2 = torch.stack([_ranked(energy_NHW, trial, candidates) for energy_NHW in energy_NTHW.unbind(1)], dim=1)
    worst = _Worst(loss_of, video_N3THW, trial)
    position_NT2 = worst.after(ranked_NTC2[:, :, 0])
    for frame in range(ranked_NTC2.shape[1]):
        for candidate_N2 in ranked_NTC2[:, frame, 1:].unbind(1):
            tried_NT2 = position_NT2.clone()
            tried_NT2[:, frame] = candidate_N2
            position_NT2 = worst.after(tried_NT2)
    return position_NT2


def at_random(image_N3HW: Tensor, size: Size, *, per_frame: bool) -> Tensor:
    """Return positions drawn uniformly from all that fit, from torch's global generator: (N, 2).

    Args:
        image_N3HW: images or videos, of which only shape and device are used.
        size: size of the rectangles.
        per_frame: whether each frame of a video has its own, (N, T, 2).
    """
    shape = (len(image_N3HW), *(image_N3HW.shape[2:-2] if per_frame else ()))
    last_rows, last_columns = _last(image_N3HW, size)
    rows = torch.randint(last_rows + 1, shape, device=image_N3HW.device)
    return torch.stack([rows, torch.randint(last_columns + 1, shape, device=image_N3HW.device)], dim=-1)


class _Worst:
    """Of the positions that were tried, the one at which a plain rectangle makes each sample's loss largest."""

    def __init__(self, loss_of: LossOf, image_N3HW: Tensor, trial: Trial) -> None:
        self.loss_of, self.image_N3HW, self.trial = loss_of, image_N3HW, trial
        self.position: Tensor | None = None
        self.loss_N = torch.full((len(image_N3HW),), -torch.inf, device=image_N3HW.device)

    @torch.no_grad()
    def after(self, position: Tensor) -> Tensor:
        """Try a position for each sample, (N, 2) or (N, T, 2), and return the worst so far; of equals, the first."""
        mask = rectangle_mask(self.image_N3HW, position, self.trial.size)
        loss_N = self.loss_of(self.image_N3HW.masked_fill(mask, self.trial.colour))
        worse_N = loss_N > self.loss_N
        before = position if self.position is None else self.position
        self.position = torch.where(worse_N.view(-1, *[1] * (position.ndim - 1)), position, before)
        self.loss_N = torch.where(worse_N, loss_N, self.loss_N)
        return self.position


def _most_harmful(loss_of: LossOf, image_N3HW: Tensor, trial: Trial, positions: Iterable[Tensor]) -> Tensor:
    worst = _Worst(loss_of, image_N3HW, trial)
    return [worst.after(position_N2) for position_N2 in positions][-1]


def _ranked(energy_NHW: Tensor, trial: Trial, candidates: int) -> Tensor:
    """Return the positions of the grid with the largest energy inside the rectangle, largest first, (N, C, 2)."""
    positions_M2 = torch.tensor(list(_grid(energy_NHW, trial)), device=energy_NHW.device)
    sums_NM = _window_sums(energy_NHW, trial.size)[:, positions_M2[:, 0], positions_M2[:, 1]]
    # A stable sort: topk would promise no order among equals.
    return positions_M2[sums_NM.argsort(dim=1, descending=True, stable=True)[:, :candidates]]


def _grid(image_N3HW: Tensor, trial: Trial) -> Iterator[tuple[int, int]]:
    last_row, last_column = _last(image_N3HW, trial.size)
    columns = _grid_lines(last_column, trial.stride)
    return ((row, column) for row in _grid_lines(last_row, trial.stride) for column in columns)


def _grid_lines(last: int, stride: int) -> list[int]:
    return sorted({*range(0, last + 1, stride), last})


def _last(image_N3HW: Tensor, size: Size) -> tuple[int, int]:
    height, width = image_N3HW.shape[-2:]
    return height - size[0], width - size[1]


def _energy(loss_of: LossOf, image_N3HW: Tensor, *, per_frame: bool = False) -> Tensor:
    """Return squared gradients, summed over colours and frames, (N, H, W), or over colours alone, (N, T, H, W)."""
    leaf = image_N3HW.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss_of(leaf).sum(), leaf)
    slope = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    if not per_frame:
        slope = slope.flatten(1, -3)
    # Where the network is confident, gradients are so small that their squares would all be 0.
    largest = slope.abs().amax(dim=(1, -2, -1), keepdim=True)
    return (slope / largest.clamp(min=torch.finfo(slope.dtype).tiny)).square().sum(1)


def _window_sums(energy_NHW: Tensor, size: Size) -> Tensor:
    # Not as differences of running sums, in which small windows beside large ones lose all their digits.
    return F.avg_pool2d(energy_NHW[:, None], size, stride=1, divisor_override=1)[:, 0]
