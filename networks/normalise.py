"""Mean and standard deviation of colours, as a layer; ImageNet's unless others are given."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from basics.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Colours:
    """How colours are prepared for a network; pixels are in [0, 1]."""

    mean: tuple[float, float, float]
    """Subtracted."""
    std: tuple[float, float, float]
    """Divided by."""

    def as_json(self) -> dict[str, list[float]]:
        """Return them as results, identities and files have them."""
        return {"mean": list(self.mean), "std": list(self.std)}

    def describe(self) -> str:
        """Return a description, e.g. `mean 0.5 0.5 0.5, std 0.25 0.25 0.25`."""
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean}, std {std}"


IMAGENET_COLOURS = Colours(IMAGENET_MEAN, IMAGENET_STD)
PIXELS = Colours((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Of a network that takes pixels as they are."""


def checked_colours(mean: Sequence[float], std: Sequence[float]) -> Colours:
    """Return how colours are prepared, after a check.

    Raises:
        UserError: these are not three means and three standard deviations of pixels in [0, 1].
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != len(PIXELS.mean):
            raise UserError(f"The {name} of colours has {len(values)} values; give one each for red, green and blue.")
    # Neither can be larger than 1 of pixels in [0, 1]. A comparison with nan is false.
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise UserError(
            f"The colours have {Colours(_three(mean), _three(std)).describe()}; give mean and std of pixels between 0 "
            "and 1 (those of pixels up to 255, divided by 255)."
        )
    return Colours(_three(mean), _three(std))


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


class Normalise(nn.Module):
    """`(image - mean) / std` per colour, with torchvision's ImageNet constants by default.

    A layer and not `torchvision.transforms.Normalize`, because that one waits for the device at every call (it
    checks std for zero), which would stall each step of an ascent.

    Args:
        mean: of each colour.
        std: of each colour.
        axes: behind the colours: 2 of images (N, 3, H, W), 3 of clips (N, 3, T, H, W).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, *, axes: int = 2
    ) -> None:
        super().__init__()
        self.colours = Colours(_three(mean), _three(std))
        shape = (1, 3, *[1] * axes)
        # Not in the state dict: these are constants, and published checkpoints do not have them.
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Normalise images (or clips) in [0, 1]."""
        return (image_N3HW - self.mean) / self.std


CLIP_COLOURS = {
    "activitynet": Colours((114.7748 / 255, 107.7354 / 255, 99.4750 / 255), (1 / 255, 1 / 255, 1 / 255)),
    "kinetics": Colours((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737)),
    "torchvision": Colours((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
    "none": PIXELS,
}
"""Ways to prepare the colours of clips, by the names of the data sets whose means these are.

`activitynet`: pixels of 0 to 255 minus a mean, the default of 3D-ResNets-PyTorch in 2018; `kinetics`: its default since
2020; `torchvision`: that of torchvision's weights; `none`: pixels in [0, 1] as they are, as in ABNN's published code.
"""
