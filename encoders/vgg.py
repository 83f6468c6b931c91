"""VGG-19 up to relu4_1 (paper: the encoder of ImageNet-AdvBN-VGG), in the layout of Huang & Belongie's AdaIN."""

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from basics.errors import UserError
from encoders.padding import ReflectionPad
from encoders.registry import EncoderKind, register
from networks.checkpoints import StateDict
from networks.cuts import RECTIFIED
from networks.normalise import IMAGENET_MEAN, IMAGENET_STD
from networks.width import scaled

CHANNELS = (64, 64, 128, 128, 256, 256, 256, 256, 512)
"""Output channels of conv1_1 ... conv4_1 at full width."""
POOLED_AFTER = (1, 3, 7)
"""Positions in CHANNELS after which the image is halved."""

NORMALISING_INDEX = 0
CONV_INDICES = (2, 5, 9, 12, 16, 19, 22, 25, 29)
"""Indices of the convolutions in the published 53-module Sequential, and so in ours."""
TORCHVISION_VGG19 = (0, 2, 5, 7, 10, 12, 14, 16, 19)
TORCHVISION_VGG19_BN = (0, 3, 7, 10, 14, 17, 20, 23, 27)
"""Indices of the same convolutions in the `features` of torchvision's networks."""


def build(width: float = 1.0) -> nn.Sequential:
    """Build the first 31 modules of the published encoder: 1x1 convolution, then nine padded 3x3 with ReLU.

    Pooling rounds up (`ceil_mode`), padding mirrors. (N, 3, H, W) in [0, 1] -> (N, 512 * width, H / 8, W / 8).
    """
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    previous = 3
    for position, full in enumerate(CHANNELS):
        channels = scaled(full, width)
        layers += [ReflectionPad(), nn.Conv2d(previous, channels, 3), nn.ReLU()]
        if position in POOLED_AFTER:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        previous = channels
    return nn.Sequential(*layers)


def convert(state: StateDict) -> tuple[StateDict, str]:
    """Convert any published form of VGG-19 to the layout of `build`.

    `adain`: `vgg_normalised.pth`, whose 1x1 convolution normalises the colours; layers behind relu4_1 are dropped.
    `torchvision`: VGG-19 with or without batch norm (folded into the convolutions); ImageNet's mean and standard
    deviation become the 1x1 convolution, which is the same arithmetic.

    Raises:
        UserError: the names or shapes are of neither form.
    """
    try:
        if f"{NORMALISING_INDEX}.weight" in state:
            return _from_adain(state), "adain"
        if "features.1.running_mean" in state:
            return _from_torchvision(_folded(state), TORCHVISION_VGG19_BN), "torchvision"
        return _from_torchvision(state, TORCHVISION_VGG19), "torchvision"
    except KeyError as error:
        raise UserError(
            f"The encoder weights are not a VGG-19 (no {error.args[0]}); "
            "give vgg_normalised.pth or torchvision's vgg19 or vgg19_bn."
        ) from error


def _from_adain(state: StateDict) -> StateDict:
    indices = (NORMALISING_INDEX, *CONV_INDICES)
    return {f"{i}.{kind}": state[f"{i}.{kind}"] for i in indices for kind in ("weight", "bias")}


def _from_torchvision(state: StateDict, sources: tuple[int, ...]) -> StateDict:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    converted = {
        f"{NORMALISING_INDEX}.weight": torch.diag(1 / std).view(3, 3, 1, 1),
        f"{NORMALISING_INDEX}.bias": -mean / std,
    }
    for ours, theirs in zip(CONV_INDICES, sources, strict=True):
        for kind in ("weight", "bias"):
            converted[f"{ours}.{kind}"] = state[f"features.{theirs}.{kind}"]
    return converted


def _folded(state: StateDict) -> StateDict:
    folded: StateDict = {}
    for conv in TORCHVISION_VGG19_BN:
        norm = f"features.{conv + 1}"
        weight, bias = fuse_conv_bn_weights(
            state[f"features.{conv}.weight"],
            state[f"features.{conv}.bias"],
            state[f"{norm}.running_mean"],
            state[f"{norm}.running_var"],
            nn.BatchNorm2d(1).eps,
            state[f"{norm}.weight"],
            state[f"{norm}.bias"],
        )
        folded[f"features.{conv}.weight"], folded[f"features.{conv}.bias"] = weight.detach(), bias.detach()
    return folded


register(
    EncoderKind(
        name="vgg",
        channels=CHANNELS[-1],
        reduction=8,
        limits=RECTIFIED,
        classifier="vgg19",  # published code: torchvision's VGG-19 without batch norm
        build=build,
        convert=convert,
    )
)
