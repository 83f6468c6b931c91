"""The terms of the loss, by method (paper, section 5.1 and Table 8).

| method | through main batch norm | through auxiliary batch norm |
|---|---|---|
| `plain` | the images | |
| `advbn` | the images | their features, statistics perturbed |
| `advprop` | the images | the images, pixels perturbed |
| `advprop+advbn` | the images | both of the above |
| `pgd-at` | the images, pixels perturbed | |
| `pgd-at+advbn` | the images, pixels perturbed | the features of these, statistics perturbed |
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from attacks.micro_batches import in_micro_batches
from attacks.pixels import PixelConfig, attack_pixels
from downstream.advbn import AdvBNNetwork
from downstream.auxiliary import AUXILIARY, MAIN
from downstream.mixing import MomentExchange


@dataclass(frozen=True, kw_only=True)
class Method:
    """The terms of a method's loss."""

    statistics: bool = False
    """Whether features with perturbed statistics are learned from (AdvBN)."""
    pixels: Literal["beside", "instead"] | None = None
    """Whether perturbed images are learned from, beside the clean ones (AdvProp) or instead (adversarial training)."""

    @property
    def uses_auxiliary(self) -> bool:
        """Whether anything passes through auxiliary batch norm."""
        return self.statistics or self.pixels == "beside"


METHODS = {
    "advbn": Method(statistics=True),
    "plain": Method(),
    "advprop": Method(pixels="beside"),
    "pgd-at": Method(pixels="instead"),
    "advprop+advbn": Method(statistics=True, pixels="beside"),
    "pgd-at+advbn": Method(statistics=True, pixels="instead"),
}


class MethodLoss(nn.Module):
    """Images in [0, 1] and targets -> named losses and shares of correct predictions; the losses are added 1:1."""

    def __init__(
        self,
        network: AdvBNNetwork,
        method: Method,
        normalise: nn.Module,
        pixels: PixelConfig,
        exchange: MomentExchange | None = None,
    ) -> None:
        super().__init__()
        self.network, self.method, self.normalise, self.pixels = network, method, normalise, pixels
        self.exchange = exchange

    def forward(self, image_N3HW: Tensor, target: Tensor, order_N: Tensor | None = None) -> dict[str, Tensor]:
        """Return the terms of the loss.

        Args:
            image_N3HW: images in [0, 1].
            target: labels (N,), or shares of the classes (N, K).
            order_N: whose moments each image gets (see `downstream.mixing`); None exchanges none.
        """
        # The attack on pixels comes first: the passes below move the statistics of batch norm.
        pixels, perturbed = self.method.pixels, image_N3HW
        if pixels is not None:
            perturbed = self.perturb_pixels(image_N3HW, target, MAIN if pixels == "instead" else AUXILIARY)
        if pixels == "instead":
            return self._from_features(self._features(perturbed, None), target, "pixel")
        terms = self._from_features(self._features(image_N3HW, order_N), target, "clean")
        if pixels == "beside":
            terms |= _term("pixel", self.network.logits(self._features(perturbed, None), AUXILIARY), target)
        return terms

    def _features(self, image_N3HW: Tensor, order_N: Tensor | None) -> Tensor:
        if self.exchange is None:
            return self.network.features(self.normalise(image_N3HW))
        self.exchange.order_N = order_N
        try:
            return self.network.features(self.normalise(image_N3HW))
        finally:
            self.exchange.order_N = None

    def _from_features(self, feat_NCHW: Tensor, target: Tensor, name: str) -> dict[str, Tensor]:
        if not self.method.statistics:
            return _term(name, self.network.logits(feat_NCHW, MAIN), target)
        losses = self.network.losses(feat_NCHW, target)
        return {
            f"{name}_loss": losses.clean,
            "adversarial_loss": losses.adversarial,
            f"{name}_top1": _top1(losses.clean_NK, target),
            "adversarial_top1": _top1(losses.adversarial_NK, target),
        }

    def perturb_pixels(self, image_N3HW: Tensor, target: Tensor, which: str) -> Tensor:
        """Attack the pixels of images in [0, 1] through one set of batch norm, in evaluation mode."""
        with self.network.evaluating_head(which) as weights:

            def loss_of(moved_N3HW: Tensor, part: slice) -> Tensor:
                feat_NCHW = self.network.front(self.normalise(moved_N3HW))
                logits_NK = functional_call(self.network.head, weights, (feat_NCHW,))
                return F.cross_entropy(logits_NK, target[part], reduction="none")

            return attack_pixels(in_micro_batches(loss_of, self.network.micro_batch), image_N3HW, self.pixels)


def _term(name: str, logits_NK: Tensor, target: Tensor) -> dict[str, Tensor]:
    return {f"{name}_loss": F.cross_entropy(logits_NK, target), f"{name}_top1": _top1(logits_NK, target)}


def _top1(logits_NK: Tensor, target: Tensor) -> Tensor:
    """Return the share of predictions of the label, or of the class with the largest share in a mixed image."""
    label_N = target if target.ndim == 1 else target.argmax(1)
    return (logits_NK.argmax(1) == label_N).to(logits_NK.dtype).mean()
