"""Attacks on pixels: PGD in an l-inf or l2 ball around each image (Madry et al. 2018), on the shared ascent loop.

Legend: N images, each with its own ball; videos (N, 3, T, H, W) are taken as well, each clip with one ball.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attacks.ascent import LossOf, Parameters, maximise, of_images
from basics.errors import UserError

Norm = Literal["linf", "l2"]


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """Strength of a pixel attack; images are in [0, 1]. The defaults are AdvProp's (Xie et al. 2020, section 5.1)."""

    eps: float = 4 / 255
    """Radius of the ball around each image; at most 1 for l-inf."""
    steps: int = 5
    """Ascent steps; 0 leaves the images as they are, apart from the random start."""
    step_size: float = 1 / 255
    """Length of a step: of each pixel for l-inf, of the whole image for l2."""
    norm: Norm = "linf"
    """Norm of the ball."""
    random_start: bool = True
    """Whether the ascent starts at a random point of the ball instead of its centre."""

    def __post_init__(self) -> None:
        if not 0 <= self.eps < float("inf"):
            raise UserError(f"The pixels' eps is {self.eps}; give a number that is not negative, e.g. 4/255.")
        if self.steps < 0:
            raise UserError(f"The number of pixel steps is {self.steps}; give 0 or more.")
        if not 0 < self.step_size < float("inf"):
            raise UserError(f"The pixels' step size is {self.step_size}; give a number above 0, e.g. 1/255.")
        if self.norm not in get_args(Norm):
            raise UserError(f"There is no norm {self.norm!r}; give one of {', '.join(get_args(Norm))}.")
        if self.norm == "linf" and self.eps > 1:
            raise UserError(
                f"The pixels' eps is {self.eps}, and for linf it lies in [0, 1], as the images do; "
                "give a share of the range, e.g. 4/255."
            )


class PixelThreat:
    """The threat model of PGD: each image in its own ball, and in [0, 1].

    A random start is drawn from torch's global generator.
    """

    def __init__(self, config: PixelConfig, image_N3HW: Tensor) -> None:
        self.config, self.image_N3HW = config, image_N3HW

    def start(self) -> Parameters:
        """Return the images, or a random point around each, uniform in the ball."""
        if not self.config.random_start:
            return (self.image_N3HW,)
        return self.project((self.image_N3HW + self._random_perturbation(),))

    def step(self, parameters: Parameters, gradients: Parameters) -> Parameters:
        """Move along the sign of the gradient (l-inf), or along the gradient (l2)."""
        (image,), (gradient,) = parameters, gradients
        direction = gradient.sign() if self.config.norm == "linf" else gradient / _length(gradient).clamp(min=_TINY)
        return (image + self.config.step_size * direction,)

    def project(self, parameters: Parameters) -> Parameters:
        """Project images into their balls, and then into [0, 1]; a ball around an image is not left by that."""
        (image,), eps = parameters, self.config.eps
        perturbation = image - self.image_N3HW
        if self.config.norm == "linf":
            perturbation = perturbation.clamp(-eps, eps)
        else:
            perturbation = perturbation * (eps / _length(perturbation).clamp(min=_TINY)).clamp(max=1)
        return ((self.image_N3HW + perturbation).clamp(0, 1),)

    def _random_perturbation(self) -> Tensor:
        image, eps = self.image_N3HW, self.config.eps
        if self.config.norm == "linf":
            return (2 * torch.rand_like(image) - 1) * eps
        direction = torch.randn_like(image)
        # The share of a ball's volume within a radius grows with radius ** dimensions.
        radius = torch.rand_like(_length(image)) ** (1 / image[0].numel())
        return direction / _length(direction).clamp(min=_TINY) * radius * eps


def attack_pixels(loss_of: LossOf, image_N3HW: Tensor, config: PixelConfig) -> Tensor:
    """Return the images, perturbed within their balls.

    Args:
        loss_of: loss to maximise.
        image_N3HW: images in [0, 1], or videos (N, 3, T, H, W).
        config: ball and strength.
    """
    return maximise([of_images(loss_of)], PixelThreat(config, image_N3HW), config.steps)[0]


_TINY = 1e-12


def _length(value_N3HW: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(value_N3HW, dim=tuple(range(1, value_N3HW.ndim)), keepdim=True)
    return length
