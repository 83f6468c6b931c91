"""The AdvBN layer inside a network (paper section 3): a frozen front, adversarial statistics, a head that learns.

Legend: N images, C channels of the features at the cut, K classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from attacks.ascent import ObjectiveValue, Parameters, maximise
from attacks.statistics import (
    AdvBNConfig,
    Average,
    StatisticsThreat,
    channel_means,
    objectives_of_parts,
    one_process,
    shift_statistics,
)
from downstream.auxiliary import AUXILIARY, MAIN, add_auxiliary, using
from networks.cuts import Cut, limits_of, split


class Losses(NamedTuple):
    """The two terms that are added 1:1, and the logits that they were computed from."""

    clean: Tensor
    """Mean cross-entropy of the clean features through main batch norm."""
    adversarial: Tensor
    """Mean cross-entropy of the perturbed features through auxiliary batch norm."""
    clean_NK: Tensor
    """Logits of the clean features."""
    adversarial_NK: Tensor
    """Logits of the perturbed features."""


@dataclass(frozen=True, kw_only=True)
class Shifted:
    """Perturbed features and the multipliers that made them."""

    feat_NCHW: Tensor
    deltas: Parameters
    """(delta_mean_C, delta_std_C)."""


class AdvBNNetwork(nn.Module):
    """A network cut in two, with auxiliary batch norm behind the cut.

    In training mode the front stays in evaluation mode: it is frozen, its batch norm fixed.

    Args:
        network: a classifier.
        cut: where it is cut.
        attack: strength of the perturbation.
        average: mean over the processes that share a batch, if the statistics are to be those of the whole batch;
            the published ones are of each process's part.
        micro_batch: most images in one pass of an attack; None passes a batch as a whole.
    """

    def __init__(
        self,
        network: nn.Module,
        cut: Cut,
        attack: AdvBNConfig,
        average: Average = one_process,
        micro_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.front, self.head = split(network, cut)
        self.front.requires_grad_(False)
        add_auxiliary(self.head)
        self.limits, self.attack, self.average = limits_of(self.front), attack, average
        self.micro_batch = micro_batch

    def train(self, mode: bool = True) -> "AdvBNNetwork":
        """Switch the head's mode."""
        super().train(mode)
        self.front.eval()
        return self

    def features(self, image_N3HW: Tensor) -> Tensor:
        """Return the features at the cut, without gradient; images are normalised."""
        with torch.no_grad():
            feat: Tensor = self.front(image_N3HW)
        return feat

    def logits(self, feat_NCHW: Tensor, which: str) -> Tensor:
        """Return logits (N, K) of features through main or auxiliary batch norm."""
        with using(self.head, which):
            logits: Tensor = self.head(feat_NCHW)
        return logits

    @contextmanager
    def evaluating_head(self, which: str) -> Iterator[dict[str, Tensor]]:
        """Put the head into evaluation mode on one set of batch norm inside the block, and yield its detached weights.

        An ascent calls the head with these, so that no gradient of a weight is computed or prepared for.
        """
        training = self.head.training
        self.head.eval()
        try:
            with using(self.head, which):
                yield {name: weight.detach() for name, weight in self.head.named_parameters()}
        finally:
            self.head.train(training)

    def perturb(self, feat_NCHW: Tensor, target: Tensor) -> Shifted:
        """Shift the features' statistics so that the loss of the head on auxiliary batch norm grows.

        Args:
            feat_NCHW: clean features.
            target: labels (N,), or shares of the classes (N, K).
        """
        threat = StatisticsThreat(self.attack, channel_means(feat_NCHW), self.average)
        with self.evaluating_head(AUXILIARY) as weights:

            def value_of(shifted_NCHW: Tensor, part: slice) -> ObjectiveValue[None]:
                logits_NK = functional_call(self.head, weights, (shifted_NCHW,))
                return ObjectiveValue(F.cross_entropy(logits_NK, target[part], reduction="none"), None)

            objectives = objectives_of_parts(
                feat_NCHW, threat.mean_C, value_of, limits=self.limits, micro_batch=self.micro_batch
            )
            deltas = maximise(objectives, threat, self.attack.steps)
        with torch.no_grad():
            shifted = shift_statistics(feat_NCHW, threat.mean_C, *deltas, limits=self.limits)
        return Shifted(feat_NCHW=shifted, deltas=deltas)

    def losses(self, feat_NCHW: Tensor, target: Tensor) -> Losses:
        """Return both terms of the published training loss: the ascent, and two passes through the head."""
        shifted = self.perturb(feat_NCHW, target)
        clean_NK = self.logits(feat_NCHW, MAIN)
        adversarial_NK = self.logits(shifted.feat_NCHW, AUXILIARY)
        return Losses(
            F.cross_entropy(clean_NK, target), F.cross_entropy(adversarial_NK, target), clean_NK, adversarial_NK
        )
