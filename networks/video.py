"""Networks of clips: the 3D ResNets of the collection that ABNN's networks come from, and torchvision's.

The collection is 3D-ResNets-PyTorch (Hara et al. 2018); state dicts have its names. Its networks differ in their
shortcuts where the shape changes: a strided convolution (type B) or subsampling with zeros for new channels (type A).

Legend: N clips (N, 3, T, H, W) in [0, 1]; C channels.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.video import r3d_18
from torchvision.models.video.resnet import BasicBlock as TorchvisionBlock

_CARDINALITY = 32
_STEM = 64


class ShortcutA(nn.Module):
    """Shortcut without weights: every other position, and zeros in the channels that are new.

    The published code takes the feature out of the graph here, so that no gradient passes through shortcuts of this
    type. With `cut` this one does as well, which exists to measure what that hides (see `set_cut_shortcuts`).
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride, self.cut = stride, False

    def forward(self, feature: Tensor, channels: int) -> Tensor:
        """(N, C, T, H, W) -> (N, channels, T / stride, H / stride, W / stride), sizes rounded up."""
        kept = feature.detach() if self.cut else feature
        kept = kept[:, :, :: self.stride, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, 0, 0, 0, channels - kept.shape[1]))


def set_cut_shortcuts(network: nn.Module, cut: bool) -> int:
    """Let gradients pass through shortcuts of type A, or cut them there as published; return how many there are."""
    shortcuts = [module for module in network.modules() if isinstance(module, ShortcutA)]
    for shortcut in shortcuts:
        shortcut.cut = cut
    return len(shortcuts)


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv3d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.downsample = downsample

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, planes, T / stride, H / stride, W / stride), sizes rounded up."""
        residual = self.relu(self.bn1(self.conv1(feature)))
        residual = self.bn2(self.conv2(residual))
        if isinstance(self.downsample, ShortcutA):
            shortcut = self.downsample(feature, residual.shape[1])
        else:
            shortcut = feature if self.downsample is None else self.downsample(feature)
        summed: Tensor = self.relu(residual + shortcut)
        return summed


class GroupedBottleneck(nn.Module):
    """ResNeXt's block: a 3x3x3 convolution in 32 groups between two of 1x1x1, beside a shortcut."""

    expansion = 2

    def __init__(self, channels: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        middle, outer = _CARDINALITY * (planes // 32), planes * self.expansion
        self.conv1 = nn.Conv3d(channels, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(middle)
        self.conv2 = nn.Conv3d(middle, middle, 3, stride, padding=1, groups=_CARDINALITY, bias=False)
        self.bn2 = nn.BatchNorm3d(middle)
        self.conv3 = nn.Conv3d(middle, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, 2 planes, T / stride, H / stride, W / stride), sizes rounded up."""
        residual = self.relu(self.bn1(self.conv1(feature)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        shortcut = feature if self.downsample is None else self.downsample(feature)
        summed: Tensor = self.relu(residual + shortcut)
        return summed


class _Block(Protocol):
    expansion: int

    def __call__(self, channels: int, planes: int, stride: int, downsample: nn.Module | None) -> nn.Module: ...


class VideoResNet(nn.Module):
    """A 3D ResNet of the collection: clips, normalised -> logits (N, classes).

    The published head averages over the last feature of clips of one size; this one does for any size.

    Args:
        block: kind of block.
        planes: of the blocks of each of the four layers.
        blocks: how many of them a layer has.
        shortcut: "A" or "B".
        classes: number of outputs.
    """

    def __init__(
        self, block: _Block, planes: Sequence[int], blocks: Sequence[int], shortcut: str, classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, _STEM, 7, stride=(1, 2, 2), padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(_STEM)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        layers, channels = [], _STEM
        for width, count, stride in zip(planes, blocks, (1, 2, 2, 2), strict=True):
            layers.append(_layer(block, channels, width, count, stride, shortcut))
            channels = width * block.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(channels, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clip_N3THW: Tensor) -> Tensor:
        """Clips -> logits."""
        feature = self.maxpool(self.relu(self.bn1(self.conv1(clip_N3THW))))
        feature = self.layer4(self.layer3(self.layer2(self.layer1(feature))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(feature), 1))
        return logits


def _layer(  # noqa: PLR0913, PLR0917 (of what, between which features)
    block: _Block, channels: int, planes: int, count: int, stride: int, shortcut: str
) -> nn.Sequential:
    outer = planes * block.expansion
    downsample: nn.Module | None = None
    if stride != 1 or channels != outer:
        convolved = nn.Conv3d(channels, outer, 1, stride, bias=False), nn.BatchNorm3d(outer)
        downsample = ShortcutA(stride) if shortcut == "A" else nn.Sequential(*convolved)
    first = block(channels, planes, stride, downsample)
    return nn.Sequential(first, *(block(outer, planes, 1, None) for _ in range(count - 1)))


_RESNEXT101 = GroupedBottleneck, (128, 256, 512, 1024), (3, 4, 23, 3)
_RESNET18 = BasicBlock, (64, 128, 256, 512), (2, 2, 2, 2)
_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "hara_resnext101": lambda classes: VideoResNet(*_RESNEXT101, "B", classes),
    "hara_resnet18": lambda classes: VideoResNet(*_RESNET18, "A", classes),
    "hara_resnet18_b": lambda classes: VideoResNet(*_RESNET18, "B", classes),
    "r3d_18": lambda classes: r3d_18(weights=None, num_classes=classes),
}
CLIP_NETWORKS = tuple(_NETWORKS)
"""Names of the networks that take clips."""
RESIDUAL_BLOCKS = (BasicBlock, GroupedBottleneck, TorchvisionBlock)
"""Classes of these networks' blocks, which are entered as a whole: by tracing, and where activations are recomputed."""


def build_clip_network(name: str, classes: int) -> nn.Module:
    """Build one of CLIP_NETWORKS with fresh weights from torch's global generator."""
    return _NETWORKS[name](classes)


def own_colours(name: str) -> str:
    """Return how one of CLIP_NETWORKS has its colours prepared by default, one of `networks.normalise.CLIP_COLOURS`."""
    return "torchvision" if name == "r3d_18" else "activitynet"
