"""The AdvBN layer inside a network (paper section 3): a frozen front, adversarial statistics, a head that learns.

Legend: N images, C channels of the features at the cut, K classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from attacks.ascent import Evaluation, Parameters, climb
from attacks.statistics import AdvBNConfig, StatisticsThreat, channel_means, shift_statistics
from downstream.auxiliary import AUXILIARY, MAIN, add_auxiliary, using
from networks.cuts import Cut, is_rectified, split


class Losses(NamedTuple):
    """The two terms that are added 1:1, and the answers behind them."""

    clean: Tensor
    """Mean cross-entropy of the clean features through main batch norm."""
    adversarial: Tensor
    """... of the perturbed features through auxiliary batch norm."""
    clean_NK: Tensor
    """Logits of the clean features."""
    adversarial_NK: Tensor
    """Logits of the perturbed features."""


@dataclass(frozen=True, kw_only=True)
class Shifted:
    """Perturbed features and how they came about."""

    feat_NCHW: Tensor
    deltas: Parameters
    """(delta_mean_C, delta_std_C)."""


class AdvBNNetwork(nn.Module):
    """A network cut in two, with auxiliary batch norm behind the cut: images (N, 3, H, W), normalised -> logits.

    In training mode the front stays in evaluation mode: it is frozen, its batch norm fixed.
    """

    def __init__(self, network: nn.Module, cut: Cut, attack: AdvBNConfig) -> None:
        super().__init__()
        self.front, self.head = split(network, cut)
        self.front.requires_grad_(False)
        add_auxiliary(self.head)
        self.rectified, self.attack = is_rectified(self.front), attack

    def train(self, mode: bool = True) -> "AdvBNNetwork":
        """Switch the head's mode."""
        super().train(mode)
        self.front.eval()
        return self

    def features(self, image_N3HW: Tensor) -> Tensor:
        """Return the features at the cut, without gradient."""
        with torch.no_grad():
            feat: Tensor = self.front(image_N3HW)
        return feat

    def answer(self, feat_NCHW: Tensor, which: str) -> Tensor:
        """Return logits (N, K) of features through main or auxiliary batch norm."""
        with using(self.head, which):
            logits: Tensor = self.head(feat_NCHW)
        return logits

    def perturb(self, feat_NCHW: Tensor, label_N: Tensor) -> Shifted:
        """Turn the features' statistics against the head, which stands in evaluation mode on auxiliary batch norm.

        No gradient of a weight is computed, and none is prepared: the head is called with detached weights.
        """
        threat = StatisticsThreat(self.attack, channel_means(feat_NCHW))
        weights = {name: weight.detach() for name, weight in self.head.named_parameters()}

        def objective(deltas: Parameters) -> Evaluation[None]:
            shifted = shift_statistics(feat_NCHW, threat.mean_C, *deltas, rectified=self.rectified)
            logits_NK = functional_call(self.head, weights, (shifted,))
            return Evaluation(F.cross_entropy(logits_NK, label_N, reduction="none"), None)

        training = self.head.training
        self.head.eval()
        with using(self.head, AUXILIARY):
            deltas = climb(objective, threat, self.attack.steps)
        self.head.train(training)
        with torch.no_grad():
            shifted = shift_statistics(feat_NCHW, threat.mean_C, *deltas, rectified=self.rectified)
        return Shifted(feat_NCHW=shifted, deltas=deltas)

    def forward(self, image_N3HW: Tensor, label_N: Tensor) -> Losses:
        """Return both terms of the training loss: one pass through the front, the ascent, two through the head."""
        feat_NCHW = self.features(image_N3HW)
        shifted = self.perturb(feat_NCHW, label_N)
        clean_NK = self.answer(feat_NCHW, MAIN)
        adversarial_NK = self.answer(shifted.feat_NCHW, AUXILIARY)
        return Losses(
            F.cross_entropy(clean_NK, label_N), F.cross_entropy(adversarial_NK, label_N), clean_NK, adversarial_NK
        )
