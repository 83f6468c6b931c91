"""OUDefend's block: it removes perturbations from a feature of clips, and is trained with the network around it.

Lo, Valanarasu and Patel 2021; a residual block of two branches, of which one enlarges the feature's frames (the
over-complete one) and one shrinks them (the under-complete one).
"""

import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH = 8
"""Channels in which the branches begin and end."""
_LARGER = (1, 2, 2)
"""Scale of frames from one over-complete layer to the next."""


class Denoise(nn.Module):
    """A feature (N, C, T, H, W) -> the same shape; H and W are at least 2.

    Convolutions have no bias, and there is no batch norm. The published code interpolates the under-complete branch to
    5x7x7, the size of its features; here it is the size of the feature.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        one, two, four, eight = _WIDTH, 2 * _WIDTH, 4 * _WIDTH, 8 * _WIDTH
        self.reduce = _pointwise(channels, one)
        self.enlarge = nn.ModuleList([_conv(one, two), _conv(two, four), _conv(four, eight)])
        self.shrink = nn.ModuleList([_conv(eight, four), _conv(four, two), _conv(two, one)])
        self.skips = nn.ModuleList([_pointwise(two, two), _pointwise(four, four)])
        self.under_in, self.under_out = _conv(one, two), _conv(two, one)
        self.under_last = _pointwise(one, one)
        self.expand = _pointwise(one, channels)
        self.outer = _pointwise(channels, channels)

    def forward(self, feature: Tensor) -> Tensor:
        """Return the feature plus what was computed to remove perturbations, behind a ReLU."""
        reduced = F.relu(self.reduce(feature))
        fused = self._over_complete(reduced) + self._under_complete(reduced)
        return F.relu(feature + self.outer(F.relu(self.expand(fused))))

    def _over_complete(self, reduced: Tensor) -> Tensor:
        value, kept = reduced, []
        for convolution in self.enlarge:
            value = F.relu(F.interpolate(convolution(value), scale_factor=_LARGER, mode="trilinear"))
            kept.append(value)
        skips = [F.relu(skip(each)) for skip, each in zip(self.skips, kept, strict=False)]
        for convolution in self.shrink:
            value = F.relu(F.max_pool3d(convolution(value), _LARGER))
            if skips:
                value = value + skips.pop()
        return value

    def _under_complete(self, reduced: Tensor) -> Tensor:
        value = F.relu(F.max_pool3d(self.under_in(reduced), _LARGER))
        value = F.relu(F.interpolate(self.under_out(value), size=reduced.shape[2:], mode="trilinear"))
        return F.relu(self.under_last(value))


def _conv(inputs: int, outputs: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)


def _pointwise(inputs: int, outputs: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, 1, bias=False)
