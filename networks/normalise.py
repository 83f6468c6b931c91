"""Mean and standard deviation of colours, as a layer; ImageNet's unless others are given."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """`(image - mean) / std` per colour, with torchvision's ImageNet constants by default.

    A layer and not `torchvision.transforms.Normalize`, because that one waits for the device at every call (it
    checks std for zero), which would stall each step of an ascent.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        # Not in the state dict: these are constants, and published checkpoints do not have them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Normalise images in [0, 1]."""
        return (image_N3HW - self.mean) / self.std
