"""ROA: a rectangle somewhere on the image, filled against the network (Wu, Tong & Vorobeychik 2020).

Legend: N samples; `...` frames T of a clip, or nothing for images; h w the rectangle.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.ascent import Evaluation, Parameters, climb
from basics.errors import UserError

Search = Literal["exhaustive", "gradient", "random"]
LossOf = Callable[[Tensor], Tensor]
"""Images (N, 3, ..., H, W) -> loss of each (N,)."""


@dataclass(frozen=True, kw_only=True)
class RectangleConfig:
    """How large a rectangle is, where it may lie, and how it is filled; images are in [0, 1]."""

    area: float = 0.1
    """Share of the image's area; the rectangle is the largest square of whole pixels within it."""
    height: int | None = None
    """Rows of the rectangle, in place of `area`; `width` has to be given as well."""
    width: int | None = None
    """Columns of the rectangle."""
    steps: int = 5
    """Ascent steps inside the rectangle."""
    step_size: float = 70 / 255
    """How far one step moves each pixel of it."""
    search: Search = "exhaustive"
    """`exhaustive`: the place where a plain rectangle costs most; `gradient`: the same among the places with the
    largest gradients; `random`: any place, in a clip another one in each frame."""
    stride: int | None = None
    """Pixels between places that are tried. None takes a fifth of the rectangle: neighbours then overlap by four
    fifths, and of a tenth of the area about 150 places are tried whatever the image's size."""
    candidates: int = 10
    """Places that the gradient search tries."""
    colour: float = 0.5
    """What the rectangle is filled with while its place is searched, and at the start of the ascent."""

    def __post_init__(self) -> None:
        if not 0 < self.area <= 1:
            raise UserError(f"The rectangle's area is {self.area:g} of the image; give a number above 0 and up to 1.")
        counts = (self.height, self.width, self.stride, self.candidates)
        if (self.height is None) != (self.width is None):
            raise UserError("A rectangle needs its height and its width; give both, or an area alone.")
        if any(number is not None and number < 1 for number in counts):
            raise UserError("The rectangle's sides, stride and candidates are counted from 1; give whole numbers.")
        if self.steps < 0 or not 0 < self.step_size < float("inf"):
            raise UserError("The rectangle needs 0 or more steps, and a step size above 0.")
        if self.search not in get_args(Search):
            raise UserError(f"There is no search {self.search!r}; give one of {', '.join(get_args(Search))}.")
        if not 0 <= self.colour <= 1:
            raise UserError(f"The rectangle's colour is {self.colour:g}; give a number from 0 to 1.")

    def size_in(self, height: int, width: int) -> tuple[int, int]:
        """Return (h, w) of the rectangle in images of this size.

        Raises:
            UserError: it is larger than the image, or has no pixel.
        """
        side = math.isqrt(int(self.area * height * width + _ROUNDING))
        size = (self.height or side, self.width or side)
        if size[0] > height or size[1] > width:
            raise UserError(
                f"A rectangle of {size[0]}x{size[1]} is larger than an image of {height}x{width}; give a smaller one."
            )
        if min(size) < 1:
            raise UserError(
                f"A share of {self.area:g} of {height}x{width} pixels is less than one; give a larger area."
            )
        return size

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the upper left corners that a search tries, the last row and column always among them."""
        sizes = self.size_in(height, width)
        stride = self.stride or max(1, min(sizes) // _PLACES_IN_A_RECTANGLE)
        rows, columns = (
            sorted({*range(0, whole - part, stride), whole - part})
            for whole, part in zip((height, width), sizes, strict=True)
        )
        return list(itertools.product(rows, columns))


_PLACES_IN_A_RECTANGLE = 5
_ROUNDING = 1e-6


class RectangleThreat:
    """The threat model of ROA: pixels inside the rectangle are free in [0, 1], all others stay as they are.

    Args:
        config: colour and step size.
        image: (N, 3, ..., H, W) in [0, 1].
        inside: whether a pixel is in the rectangle, (N, 1, ..., H, W).
    """

    def __init__(self, config: RectangleConfig, image: Tensor, inside: Tensor) -> None:
        self.config, self.image, self.inside = config, image, inside

    def start(self) -> Parameters:
        """Return the images with plain rectangles on them."""
        return (painted(self.image, self.inside, self.config.colour),)

    def step(self, parameters: Parameters, gradients: Parameters) -> Parameters:
        """Move along the sign of the gradient."""
        return (parameters[0] + self.config.step_size * gradients[0].sign(),)

    def project(self, parameters: Parameters) -> Parameters:
        """Bring rectangles back into [0, 1], and everything around them back to the images."""
        return (torch.where(self.inside, parameters[0].clamp(0, 1), self.image),)


def attack_rectangles(loss_of: LossOf, image: Tensor, config: RectangleConfig) -> Tensor:
    """Return images with a rectangle on each, placed and filled so that the loss grows.

    Args:
        loss_of: what grows; the network in it must not require gradients.
        image: (N, 3, H, W), or clips (N, 3, T, H, W), in [0, 1].
        config: the rectangle.

    Raises:
        UserError: the rectangle is larger than the image.
    """
    size = config.size_in(*image.shape[-2:])
    corner = find_places(loss_of, image, config)
    threat = RectangleThreat(config, image, inside_of(corner, size, image))
    return climb(lambda parameters: Evaluation(loss_of(parameters[0]), None), threat, config.steps)[0]


def find_places(loss_of: LossOf, image: Tensor, config: RectangleConfig) -> Tensor:
    """Return where rectangles go: their upper left corners, (N, 2), or (N, T, 2) where frames have their own.

    Of places that cost as much the first one in reading order is taken. Random ones come from torch's global generator.
    """
    if config.search == "random":
        return _random_places(image, config)
    places = torch.tensor(config.places(*image.shape[-2:]), device=image.device)
    if config.search == "exhaustive":
        tried: Iterable[Tensor] = (place.expand(len(image), 2) for place in places)
    else:
        tried = places[_steepest(loss_of, image, config, places)].unbind(1)
    return _costliest(loss_of, image, config, tried)


def inside_of(corner: Tensor, size: tuple[int, int], image: Tensor) -> Tensor:
    """Return whether each pixel lies in its rectangle: (N, 1, ..., H, W), frames as in `corner` or 1.

    Args:
        corner: upper left corners (N, 2) or (N, T, 2).
        size: (h, w).
        image: the images.
    """
    if image.ndim > corner.ndim + 2:
        corner = corner[:, None]
    flags = []
    for axis, length in enumerate(image.shape[-2:]):
        place = torch.arange(length, device=image.device)
        first = corner[..., axis, None]
        flags.append((place >= first) & (place < first + size[axis]))
    return (flags[0][..., :, None] & flags[1][..., None, :]).unsqueeze(1)


def painted(image: Tensor, inside: Tensor, colour: float) -> Tensor:
    """Return images with plain rectangles on them."""
    return torch.where(inside, torch.full_like(image, colour), image)


@torch.no_grad()
def _costliest(loss_of: LossOf, image: Tensor, config: RectangleConfig, tried: Iterable[Tensor]) -> Tensor:
    """Return for each image the corner, of those tried (each (N, 2)), at which a plain rectangle costs most."""
    size = config.size_in(*image.shape[-2:])
    best_N = image.new_full((len(image),), float("-inf"))
    found_N2 = torch.zeros(len(image), 2, dtype=torch.long, device=image.device)
    for corner_N2 in tried:
        loss_N = loss_of(painted(image, inside_of(corner_N2, size, image), config.colour))
        better_N = loss_N > best_N
        best_N = torch.where(better_N, loss_N, best_N)
        found_N2 = torch.where(better_N[:, None], corner_N2, found_N2)
    return found_N2


def _steepest(loss_of: LossOf, image: Tensor, config: RectangleConfig, places_P2: Tensor) -> Tensor:
    """Return which places have the largest squared gradient in their rectangle, the largest first: (N, C)."""
    leaf = image.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss_of(leaf).sum(), leaf)
    square_N1HW = gradient.square().flatten(1, -3).sum(1, keepdim=True)
    window_NHW = F.avg_pool2d(square_N1HW, config.size_in(*image.shape[-2:]), stride=1)[:, 0]
    at_places_NP = window_NHW[:, places_P2[:, 0], places_P2[:, 1]]
    return at_places_NP.topk(min(config.candidates, len(places_P2)), dim=1).indices


def _random_places(image: Tensor, config: RectangleConfig) -> Tensor:
    sizes = zip(image.shape[-2:], config.size_in(*image.shape[-2:]), strict=True)
    shape = (len(image), *image.shape[2:-2])
    return torch.stack([torch.randint(whole - part + 1, shape, device=image.device) for whole, part in sizes], dim=-1)
