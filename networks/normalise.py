"""Mean and standard deviation of colours, as a layer; ImageNet's unless others are given."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
        shape = (1, 3, *[1] * axes)
        # Not in the state dict: these are constants, and published checkpoints do not have them.
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Normalise images (or clips) in [0, 1]."""
        return (image_N3HW - self.mean) / self.std


@dataclass(frozen=True)
class Colours:
    """How the colours of clips are prepared for a network; pixels are in [0, 1]."""

    mean: tuple[float, float, float]
    """Subtracted."""
    std: tuple[float, float, float]
    """Divided by."""


CLIP_COLOURS = {
    "activitynet": Colours((114.7748 / 255, 107.7354 / 255, 99.4750 / 255), (1 / 255, 1 / 255, 1 / 255)),
    "kinetics": Colours((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737)),
    "torchvision": Colours((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
    "none": Colours((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Ways to prepare the colours of clips, by the names of the data sets whose means these are.

`activitynet`: pixels of 0 to 255 minus a mean, the default of 3D-ResNets-PyTorch in 2018; `kinetics`: its default since
2020; `torchvision`: that of torchvision's weights; `none`: pixels in [0, 1] as they are, as in ABNN's published code.
"""
