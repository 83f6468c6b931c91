"""AdvBN on batches in memory, with any networks: for notebooks and for code of one's own (paper section 3).

The main job (`pipeline.batch_arithmetic`) does the same on whole data sets. Legend: N samples, C channels, K classes, S
steps and the state before them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.ascent import AscentResult, ObjectiveValue, ascend
from attacks.micro_batches import outputs_in_micro_batches
from attacks.statistics import AdvBNConfig, StatisticsThreat, channel_means, objectives_of_parts, shift_statistics
from basics.errors import UserError
from networks.cuts import UNLIMITED, Limits


@dataclass(frozen=True, kw_only=True)
class PerturbedFeatures:
    """A batch of features with shifted statistics."""

    feat_NCHW: Tensor
    """The features."""
    delta_mean_C: Tensor
    """float64 multipliers of the channel means."""
    delta_std_C: Tensor
    """float64 multipliers of the channel standard deviations."""
    losses_SN: Tensor
    """Cross-entropy of each sample before the first and after each step: (steps + 1, N)."""


@dataclass(frozen=True, kw_only=True)
class PerturbedImages:
    """A batch of images through an autoencoder, without and with shifted statistics."""

    image_N3HW: Tensor
    """The perturbed images, not clamped to [0, 1], as the classifier saw them."""
    reconstructed_N3HW: Tensor
    """The images through the same autoencoder without perturbation."""
    delta_mean_C: Tensor
    """float64 multipliers of the channel means."""
    delta_std_C: Tensor
    """float64 multipliers of the channel standard deviations."""
    losses_SN: Tensor
    """Cross-entropy of each image before the first and after each step: (steps + 1, N)."""


def perturb_features(  # noqa: PLR0913 (what is perturbed, against what, how)
    feat_NCHW: Tensor,
    label_N: Tensor,
    head: nn.Module,
    attack: AdvBNConfig | None = None,
    *,
    limits: Limits = UNLIMITED,
    micro_batch: int | None = None,
) -> PerturbedFeatures:
    """Shift the statistics of a batch of features so that a network classifies it wrongly.

    Args:
        feat_NCHW: the features of a batch; their means over batch and positions are shifted.
        label_N: true classes.
        head: features (N, C, H, W) -> logits (N, K). It is used in evaluation mode, and left as it was.
        attack: strength; None takes the published one (eps 1.1, six steps of 0.2).
        limits: least and greatest value that features can have, such as `(0, inf)` of features out of a ReLU.
        micro_batch: most samples in one pass of the head, to save memory; None: all. It changes nothing but rounding.

    Raises:
        UserError: the features are not a batch (N, C, H, W), or the labels are not as many.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator object at ...>
        >>> head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10))
        >>> found = perturb_features(torch.rand(8, 3, 4, 4), torch.arange(8), head)
        >>> bool(found.losses_SN[-1].mean() > found.losses_SN[0].mean())
        True
        >>> found.delta_std_C.shape, found.losses_SN.shape
        (torch.Size([3]), torch.Size([7, 8]))
    """
    _require_batch(feat_NCHW, label_N, "features (N, C, H, W)")

    def value_of(shifted_NCHW: Tensor, part: slice) -> ObjectiveValue[None]:
        return ObjectiveValue(F.cross_entropy(head(shifted_NCHW), label_N[part], reduction="none"), None)

    attack = attack or AdvBNConfig()
    with _frozen(head):
        threat = StatisticsThreat(attack, channel_means(feat_NCHW))
        objectives = objectives_of_parts(feat_NCHW, threat.mean_C, value_of, limits=limits, micro_batch=micro_batch)
        ascent = ascend(objectives, threat, attack.steps)
        shifted = shift_statistics(feat_NCHW, threat.mean_C, *ascent.parameters, limits=limits)
    return PerturbedFeatures(feat_NCHW=shifted, **_found(ascent))


def perturb_images(  # noqa: PLR0913, PLR0917 (what is perturbed, through what, against what, how)
    image_N3HW: Tensor,
    label_N: Tensor,
    encoder: nn.Module,
    decoder: nn.Module,
    classifier: nn.Module,
    attack: AdvBNConfig | None = None,
    *,
    limits: Limits = UNLIMITED,
    micro_batch: int | None = None,
) -> PerturbedImages:
    """Perturb a batch of images as ImageNet-AdvBN's were: encode, shift the statistics against a classifier, decode.

    Args:
        image_N3HW: images as the encoder takes them (ours: in [0, 1]).
        label_N: true classes.
        encoder: images -> features (N, C, H, W).
        decoder: features -> images.
        classifier: decoded images -> logits (N, K); it must prepare colours itself.
        attack: strength; None takes the published one (eps 1.1, six steps of 0.2).
        limits: least and greatest value that features can have, such as `(0, inf)` of features out of a ReLU.
        micro_batch: most images in one pass, to save memory; None: all. It changes nothing but rounding.

    All three are used in evaluation mode, and left as they were.

    Raises:
        UserError: the images are not a batch (N, 3, H, W), or the labels are not as many.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> encoder, decoder = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), nn.ReLU()), nn.ConvTranspose2d(8, 3, 2, 2)
        >>> classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
        >>> found = perturb_images(
        ...     torch.rand(4, 3, 8, 8), torch.arange(4), encoder, decoder, classifier, limits=(0, float("inf"))
        ... )
        >>> found.image_N3HW.shape, found.reconstructed_N3HW.shape, found.delta_mean_C.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 3, 8, 8]), torch.Size([8]))
    """
    _require_batch(image_N3HW, label_N, "images (N, 3, H, W)")

    def value_of(shifted_NCHW: Tensor, part: slice) -> ObjectiveValue[Tensor]:
        decoded = decoder(shifted_NCHW)
        loss_N = F.cross_entropy(classifier(decoded), label_N[part], reduction="none")
        return ObjectiveValue(loss_N, decoded.detach())

    attack = attack or AdvBNConfig()
    with _frozen(encoder, decoder, classifier):
        feat_NCHW = outputs_in_micro_batches(encoder, micro_batch)(image_N3HW)
        threat = StatisticsThreat(attack, channel_means(feat_NCHW))
        objectives = objectives_of_parts(feat_NCHW, threat.mean_C, value_of, limits=limits, micro_batch=micro_batch)
        ascent = ascend(objectives, threat, attack.steps)
    first, last = (torch.cat([value.extra for value in values]) for values in (ascent.first, ascent.last))
    return PerturbedImages(image_N3HW=last, reconstructed_N3HW=first, **_found(ascent))


def _require_batch(batch: Tensor, label_N: Tensor, what: str) -> None:
    if batch.ndim != 4 or not len(batch):
        raise UserError(f"The batch has the shape {tuple(batch.shape)}; give {what}.")
    if label_N.shape != (len(batch),):
        raise UserError(
            f"There are {len(batch)} samples and labels of the shape {tuple(label_N.shape)}; give one each."
        )


def _found(ascent: AscentResult[Any]) -> dict[str, Tensor]:
    delta_mean, delta_std = (delta.flatten() for delta in ascent.parameters)
    return {"delta_mean_C": delta_mean, "delta_std_C": delta_std, "losses_SN": ascent.losses_SN}


@contextmanager
def _frozen(*networks: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode, without gradients of their weights, and restore them afterwards."""
    modules = [module for network in networks for module in network.modules()]
    training = [module.training for module in modules]
    weights = [weight for network in networks for weight in network.parameters()]
    learned = [weight.requires_grad for weight in weights]
    try:
        for network in networks:
            network.eval().requires_grad_(False)
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.training = mode
        for weight, learns in zip(weights, learned, strict=True):
            weight.requires_grad_(learns)
