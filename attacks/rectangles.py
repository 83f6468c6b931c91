"""ROA, the rectangular occlusion attack (Wu, Tong & Vorobeychik 2020): position a rectangle, then PGD inside it.

Legend: N images in [0, 1], H x W pixels; T frames of a video (N, 3, T, H, W). Positions as in `attacks.positions`.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attacks.ascent import LossOf, Parameters, maximise, of_images
from attacks.positions import (
    Size,
    Trial,
    at_random,
    by_gradient,
    by_gradient_in_frames,
    exhaustive,
    rectangle_mask,
)
from basics.errors import UserError

Search = Literal["exhaustive", "gradient", "random"]


@dataclass(frozen=True, kw_only=True)
class RectangleConfig:
    """Size of the rectangle, how it is positioned, and strength of the attack inside it; images are in [0, 1].

    The defaults of size, steps and step size are those of the ABNN paper's video experiment: 35 x 35 pixels at 112 x
    112, five steps of 70/255. At 32 x 32, it is 10 x 10.
    """

    area: float = 0.1
    """Share of the image that the rectangle, a square, covers; its side is rounded down."""
    height: int | None = None
    """Height in pixels instead of `area`; goes with `width`."""
    width: int | None = None
    """Width in pixels instead of `area`; goes with `height`."""
    steps: int = 5
    """Ascent steps inside the rectangle; 0 leaves it plain."""
    step_size: float = 70 / 255
    """How far one step moves each pixel of the rectangle."""
    stride: int | None = None
    """Pixels between two positions that are tried; None: a quarter of the rectangle's shorter side, at least 1.

    A quarter, because neighbours then overlap by three quarters, so that no position is far from one that was tried,
    and because the cost depends on `area` alone: 144 forward passes at 32 x 32 and 121 at 112 x 112. Stride 1 would
    take 529 and 6,084. The attack inside takes 5 forward and backward passes.
    """
    search: Search = "exhaustive"
    """Positions to try: all of the grid, those of large gradients, or a random one."""
    per_frame: bool = True
    """Whether each frame of a video has its own position, as published; False: one position for the whole video. The
    exhaustive search always finds one for the whole video: the grid of all frames' positions has no end."""
    candidates: int = 10
    """Positions that the gradient search tries; of a video with a position for each frame, in each frame."""
    colour: float = 0.5
    """Grey of the rectangle during the search, and before the first step."""

    def __post_init__(self) -> None:
        self._check_size()
        if self.steps < 0:
            raise UserError(f"The number of rectangle steps is {self.steps}; give 0 or more.")
        if not 0 < self.step_size < float("inf"):
            raise UserError(f"The rectangle's step size is {self.step_size}; give a number above 0, e.g. 70/255.")
        if self.stride is not None and self.stride < 1:
            raise UserError(f"The rectangle's stride is {self.stride}; give 1 or more pixels.")
        if self.search not in get_args(Search):
            raise UserError(f"There is no search {self.search!r}; give one of {', '.join(get_args(Search))}.")
        if self.candidates < 1:
            raise UserError(f"The number of candidate positions is {self.candidates}; give 1 or more.")
        if not 0 <= self.colour <= 1:
            raise UserError(f"The rectangle's colour is {self.colour}; give a grey from 0 (black) to 1 (white).")

    def _check_size(self) -> None:
        if not 0 < self.area <= 1:
            raise UserError(f"The rectangle's area is {self.area}; give a share of the image above 0, e.g. 0.1.")
        if (self.height is None) != (self.width is None):
            raise UserError("The rectangle's height and width go together; give both, or neither and an area.")
        if self.height is not None and self.width is not None and min(self.height, self.width) < 1:
            raise UserError(f"The rectangle is {self.height} x {self.width} pixels; give 1 or more for both.")

    def size_in(self, height: int, width: int) -> Size:
        """Return the rectangle's height and width in images of `height` x `width` pixels.

        Raises:
            UserError: if it would be larger than the image, or less than a pixel.
        """
        if self.height is not None and self.width is not None:
            size = self.height, self.width
        else:
            # The small addend keeps a pixel that rounding would lose where the area is a square number.
            side = math.floor(math.sqrt(self.area * height * width) + 1e-9)
            size = side, side
        if size[0] > height or size[1] > width:
            raise UserError(
                f"A rectangle of {size[0]} x {size[1]} pixels is larger than the images, which are {height} x {width}; "
                "give a smaller area, or a height and width that fit."
            )
        if min(size) < 1:
            raise UserError(
                f"The rectangle's area of {self.area} is less than a pixel in images of {height} x {width}; "
                "give a larger one."
            )
        return size


class RectangleThreat:
    """The threat model of ROA: pixels inside the rectangle are free in [0, 1], all others stay bit for bit.

    Args:
        config: size, colour and step size of the rectangle.
        image_N3HW: clean images, or videos.
        position: of the rectangle, one for each sample (N, 2) or for each frame (N, T, 2).
    """

    def __init__(self, config: RectangleConfig, image_N3HW: Tensor, position: Tensor) -> None:
        self.config, self.image_N3HW = config, image_N3HW
        self.inside = rectangle_mask(image_N3HW, position, config.size_in(*image_N3HW.shape[-2:]))

    def start(self) -> Parameters:
        """Return the images with a plain rectangle."""
        return (self.image_N3HW.masked_fill(self.inside, self.config.colour),)

    def step(self, parameters: Parameters, gradients: Parameters) -> Parameters:
        """Move the pixels inside along the sign of their gradient."""
        (image,), (gradient,) = parameters, gradients
        return (torch.where(self.inside, image + self.config.step_size * gradient.sign(), image),)

    def project(self, parameters: Parameters) -> Parameters:
        """Clamp the pixels inside to [0, 1], and restore those outside."""
        return (torch.where(self.inside, parameters[0].clamp(0, 1), self.image_N3HW),)


def find_positions(loss_of: LossOf, image_N3HW: Tensor, config: RectangleConfig) -> Tensor:
    """Return the positions of the rectangle: (N, 2), or (N, T, 2) for a position in each frame of videos.

    Raises:
        UserError: if the images are neither images nor videos, or too small for the rectangle.
    """
    if image_N3HW.ndim not in (4, 5):
        raise UserError(
            f"Rectangles go into images (N, 3, H, W) or videos (N, 3, T, H, W), not into {tuple(image_N3HW.shape)}; "
            "give a batch of either."
        )
    size = config.size_in(*image_N3HW.shape[-2:])
    trial = Trial(size, config.stride or max(1, min(size) // 4), config.colour)
    per_frame = config.per_frame and image_N3HW.ndim == 5
    if config.search == "random":
        return at_random(image_N3HW, size, per_frame=per_frame)
    if config.search == "gradient":
        search = by_gradient_in_frames if per_frame else by_gradient
        return search(loss_of, image_N3HW, trial, config.candidates)
    return exhaustive(loss_of, image_N3HW, trial)


def attack_rectangles(loss_of: LossOf, image_N3HW: Tensor, config: RectangleConfig) -> Tensor:
    """Return the images, each with the rectangle that was found for it.

    Args:
        loss_of: loss to maximise.
        image_N3HW: images in [0, 1], or videos (N, 3, T, H, W).
        config: rectangle and strength.

    Raises:
        UserError: if the rectangle is larger than the images.
    """
    threat = RectangleThreat(config, image_N3HW, find_positions(loss_of, image_N3HW, config))
    return maximise([of_images(loss_of)], threat, config.steps)[0]
