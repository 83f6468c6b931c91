"""Ways to mix the images of a batch, and their labels with them: CutMix, MixUp (torchvision's), and moment exchange.

All randomness comes from torch's global generator. Legend: N images, K classes, C channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

CUTMIX, MIXUP, MOEX = "cutmix", "mixup", "moex"
MIXINGS = (CUTMIX, MIXUP, MOEX)

_CUTMIX_ALPHA = 1.0
_MIXUP_ALPHA = 0.2
MOEX_SHARE = 0.9
"""Share of an image's own class; the other class is that of the image whose moments it gets (Li et al. 2021)."""
_MOEX_CHANCE_BESIDE_CUTMIX = 0.25
_MOEX_EPSILON = 1e-5

_STEMS = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), "maxpool"),
    "densenet121": "features.pool0",
    "efficientnet_b0": "features.0.2",
}
"""Layer behind which moments are exchanged: the end of the stem, as published for ResNets."""


class Mixed(NamedTuple):
    """A batch with its targets."""

    image_N3HW: Tensor
    target: Tensor
    """Labels (N,), or shares of the classes (N, K)."""
    order_N: Tensor | None
    """Index of the image whose moments each image gets; None exchanges none."""


class Mixing:
    """Mixes batches in one of several ways, drawn for each batch.

    Moment exchange alone mixes every batch; beside another way it has a quarter of them, as published beside CutMix.
    """

    def __init__(self, names: Sequence[str], classes: int) -> None:
        self.classes, self.exchanges = classes, MOEX in names
        ways = {
            CUTMIX: v2.CutMix(num_classes=classes, alpha=_CUTMIX_ALPHA),
            MIXUP: v2.MixUp(num_classes=classes, alpha=_MIXUP_ALPHA),
        }
        self.ways = [ways[name] for name in names if name != MOEX]

    def __call__(self, image_N3HW: Tensor, label_N: Tensor) -> Mixed:
        """Mix a batch; without any way it comes back as it is."""
        if self.exchanges and (not self.ways or float(torch.rand(())) < _MOEX_CHANCE_BESIDE_CUTMIX):
            order_N = torch.randperm(len(label_N)).to(label_N.device)
            own_NK = F.one_hot(label_N, self.classes).to(image_N3HW.dtype)
            return Mixed(image_N3HW, MOEX_SHARE * own_NK + (1 - MOEX_SHARE) * own_NK[order_N], order_N)
        if not self.ways:
            return Mixed(image_N3HW, label_N, None)
        way = self.ways[int(torch.randint(len(self.ways), ()))]
        image_N3HW, share_NK = way(image_N3HW, label_N)
        return Mixed(image_N3HW, share_NK.to(image_N3HW.dtype), None)


def exchange_moments(feat_NCHW: Tensor, order_N: Tensor) -> Tensor:
    """Give each image's features the moments of another's: mean and deviation over the channels, at each position.

    Li et al. 2021, section 3, with positional normalisation.
    """
    mean = feat_NCHW.mean(1, keepdim=True)
    deviation = (feat_NCHW.var(1, keepdim=True) + _MOEX_EPSILON).sqrt()
    return (feat_NCHW - mean) / deviation * deviation[order_N] + mean[order_N]


class MomentExchange:
    """Exchanges moments inside a network's front, whenever `order_N` is set: behind the stem, or else at the cut."""

    def __init__(self, front: nn.Module, arch: str) -> None:
        self.order_N: Tensor | None = None
        dict(front.named_modules()).get(_STEMS.get(arch, ""), front).register_forward_hook(self._exchange)

    def _exchange(self, _module: nn.Module, _inputs: object, feat_NCHW: Tensor) -> Tensor:
        return feat_NCHW if self.order_N is None else exchange_moments(feat_NCHW, self.order_N)
