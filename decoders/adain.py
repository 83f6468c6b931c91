"""The decoder of Huang & Belongie's AdaIN (2017): mirrored VGG, nearest upsampling, reflection padding, no norm."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basics.errors import UserError
from decoders.phases import interleaved, windows
from encoders.padding import ReflectionPad, reflect_by_one, replicate_by_one
from encoders.registry import EncoderKind
from networks.width import scaled

STAGES: dict[int, tuple[int, ...]] = {
    16: (512, 512),
    8: (512, 256),
    4: (256, 256, 256, 256, 128),
    2: (128, 128, 64),
    1: (64, 64, 3),
}
"""Reduction -> channels in and out of its 3x3 convolutions at full width; between stages the image doubles."""


REWRITTEN_FROM_CHANNELS = 64
"""Fewer channels are too little arithmetic for the rewrite below to pay (docs/measurements.md)."""


class UpsampledConv(nn.Conv2d):
    """A 3x3 convolution of an image doubled by nearest-neighbour upsampling and padded by reflection.

    Each output position sees only 2x2 different inputs: an even row reads rows (i-1, i, i) of the small image and an
    odd one (i, i, i+1). So the kernel's rows and columns that meet the same input are added up first, and four 2x2
    convolutions at low resolution give the four phases: 4 products an output instead of 9. Reflection of the doubled
    image repeats its border, which is replication of the small one. The weights are those of the plain convolution,
    which is what layers with few channels do.
    """

    layout: torch.memory_format | None = None
    """Layout in which the four convolutions are computed; None for the image's. Rounding depends on it, and time: with
    channels last, they took a third to two thirds of what they take in the other layout."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size=3)

    def forward(self, small_NCHW: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, 2H, 2W)."""
        if self.in_channels < REWRITTEN_FROM_CHANNELS:
            return self.plain(small_NCHW)
        return self.rewritten(small_NCHW)

    def plain(self, small_NCHW: Tensor) -> Tensor:
        """Double, pad, convolve."""
        doubled = F.interpolate(small_NCHW, scale_factor=2, mode="nearest")
        return F.conv2d(reflect_by_one(doubled), self.weight, self.bias)

    def rewritten(self, small_NCHW: Tensor) -> Tensor:
        """Convolve four times at low resolution, and interleave."""
        kernels = [kernel for row in _phases(self.weight, dim=2) for kernel in _phases(row, dim=3)]
        seen = windows(replicate_by_one(small_NCHW), self.layout)
        pairs = zip(seen, kernels, strict=True)
        return interleaved(tuple(F.conv2d(window, kernel, self.bias) for window, kernel in pairs))


def _phases(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Fold three taps of a kernel into the two of an even and of an odd output position."""
    first, middle, last = kernel.unbind(dim)
    return torch.stack((first, middle + last), dim), torch.stack((first + middle, last), dim)


def build_decoder(kind: EncoderKind, width: float = 1.0) -> nn.Sequential:
    """Build the decoder that mirrors an encoder.

    The stages above the encoder's resolution are left out, so the ResNet variant is the same decoder without its
    512 -> 256 convolution and first upsampling. (N, C, H, W) features -> images (N, 3, H * reduction, W * reduction),
    not clamped to [0, 1]. For the VGG encoder the modules have the indices of the published `decoder.pth`.

    Raises:
        UserError: the encoder's reduction is none of the decoder's.
    """
    if kind.reduction not in STAGES:
        raise UserError(f"The decoder has no stage for encoder {kind.name!r}: its reduction is not in {list(STAGES)}.")
    layers: list[nn.Module] = []
    channels = kind.feature_channels(width)
    for reduction, stage in STAGES.items():
        if reduction > kind.reduction:
            continue
        doubled = bool(layers)
        for full in stage[1:]:
            following = full if full == 3 else scaled(full, width)
            layers += _block(channels, following, doubled=doubled)
            channels, doubled = following, False
    decoder = nn.Sequential(*layers[:-1])
    _initialise(decoder)
    return decoder


def _initialise(decoder: nn.Sequential) -> None:
    """Fresh weights under which signals keep their size, and whose first images are grey."""
    *hidden, last = (layer for layer in decoder if isinstance(layer, nn.Conv2d))
    for layer in hidden:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        _fill_bias(layer, 0.0)
    nn.init.xavier_normal_(last.weight, gain=0.5)
    _fill_bias(last, 0.5)


@torch.no_grad()
def scale_to_features(decoder: nn.Sequential, feat_NCHW: Tensor) -> None:
    """Scale a fresh decoder's first layer, so that signals keep the size that they have in features of about 1.

    The features of an inverted bottleneck that no ReLU follows are about ten times as large, and a decoder with fresh
    weights would give images as far from [0, 1], which cost most of its training (docs/choices.md).

    Args:
        decoder: as `build_decoder` returns it.
        feat_NCHW: features of some images.
    """
    first = next(layer for layer in decoder if isinstance(layer, nn.Conv2d))
    first.weight /= feat_NCHW.double().square().mean().sqrt().clamp(min=1e-6).to(first.weight)


def _fill_bias(layer: nn.Conv2d, value: float) -> None:
    if layer.bias is not None:
        nn.init.constant_(layer.bias, value)


def _block(channels_in: int, channels_out: int, *, doubled: bool) -> list[nn.Module]:
    if doubled:
        # The published layout has an upsampling and a padding at this point; they keep their indices.
        return [nn.Identity(), nn.Identity(), UpsampledConv(channels_in, channels_out), nn.ReLU(inplace=True)]
    return [ReflectionPad(), nn.Conv2d(channels_in, channels_out, 3), nn.ReLU(inplace=True)]
