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
    """A batch of features with shifted statistics, as `perturb_features` returns it (paper section 3).

    Attributes:
        feat_NCHW: the shifted features, of the shape, device and data type of the clean ones, without gradient.
        delta_mean_C: float64 multipliers of the channel means, (C,), in [1 - eps, 1 + eps].
        delta_std_C: float64 multipliers of the channel standard deviations, as these.
        losses_SN: cross-entropy of each sample before the first step and after each step, (steps + 1, N).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from advbn_gen import PerturbedFeatures, perturb_features
        >>> head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10))
        >>> found = perturb_features(torch.rand(8, 3, 4, 4), torch.arange(8), head)
        >>> isinstance(found, PerturbedFeatures), found.feat_NCHW.shape, found.delta_mean_C.shape
        (True, torch.Size([8, 3, 4, 4]), torch.Size([3]))
    """

    feat_NCHW: Tensor
    delta_mean_C: Tensor
    delta_std_C: Tensor
    losses_SN: Tensor


@dataclass(frozen=True, kw_only=True)
class PerturbedImages:
    """A batch of images through an autoencoder, without and with shifted statistics (paper section 3, appendix B.1).

    Attributes:
        image_N3HW: the perturbed images, not clamped to [0, 1], as the classifier saw them.
        reconstructed_N3HW: the images through the same autoencoder without perturbation.
        delta_mean_C: float64 multipliers of the channel means, (C,), in [1 - eps, 1 + eps].
        delta_std_C: float64 multipliers of the channel standard deviations, as these.
        losses_SN: cross-entropy of each image before the first step and after each step, (steps + 1, N).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from advbn_gen import PerturbedImages, perturb_images
        >>> encoder, decoder = nn.Conv2d(3, 8, 2, stride=2), nn.ConvTranspose2d(8, 3, 2, stride=2)
        >>> classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
        >>> found = perturb_images(torch.rand(4, 3, 8, 8), torch.arange(4), encoder, decoder, classifier)
        >>> isinstance(found, PerturbedImages), found.image_N3HW.clamp(0, 1).shape, found.delta_std_C.shape
        (True, torch.Size([4, 3, 8, 8]), torch.Size([8]))
    """

    image_N3HW: Tensor
    reconstructed_N3HW: Tensor
    delta_mean_C: Tensor
    delta_std_C: Tensor
    losses_SN: Tensor


def perturb_features(  # noqa: PLR0913 (what is perturbed, against what, how)
    feat_NCHW: Tensor,
    label_N: Tensor,
    head: nn.Module,
    attack: AdvBNConfig | None = None,
    *,
    limits: Limits = UNLIMITED,
    micro_batch: int | None = None,
) -> PerturbedFeatures:
    """Shift the statistics of a batch of features so that a network classifies it wrongly (AdvBN, paper section 3).

    The shifted features are `delta_std * (feat - mean) + delta_mean * mean`, with the mean of each channel over batch
    and positions, and multipliers that increase the cross-entropy by steps along the sign of its gradient.

    Args:
        feat_NCHW: the features of a batch, of any floating-point data type, on the device of the head.
        label_N: true classes, integers in 0..K-1 of any data type.
        head: features (N, C, H, W) -> logits (N, K). It is used in evaluation mode, and left as it was.
        attack: strength; None takes the published one (eps 1.1, six steps of 0.2).
        limits: least and greatest value that features can have, such as `(0, inf)` of features out of a ReLU.
        micro_batch: most samples in one pass of the head, to save memory; None: all. It changes nothing but rounding.

    Raises:
        UserError: the features are not a batch (N, C, H, W) of floating-point numbers, or there is not an integer
            label for each.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from advbn_gen import perturb_features
        >>> head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10))
        >>> found = perturb_features(torch.rand(8, 3, 4, 4), torch.arange(8), head)
        >>> bool(found.losses_SN[-1].mean() > found.losses_SN[0].mean())
        True
        >>> found.feat_NCHW.shape, found.losses_SN.shape
        (torch.Size([8, 3, 4, 4]), torch.Size([7, 8]))
    """
    label_N = _checked_labels(feat_NCHW, label_N, "features (N, C, H, W)")

    def value_of(shifted_NCHW: Tensor, part: slice) -> ObjectiveValue[None]:
        return ObjectiveValue(F.cross_entropy(head(shifted_NCHW), label_N[part], reduction="none"), None)

    attack = attack or AdvBNConfig()
    with _frozen(head):
        feat_NCHW = _usable(feat_NCHW)
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

    Paper section 3 and appendix B.1; `perturb_features` has the formula.

    Args:
        image_N3HW: images as the encoder takes them (ours: in [0, 1]), floating-point, on the networks' device.
        label_N: true classes, integers in 0..K-1 of any data type.
        encoder: images -> features (N, C, H, W).
        decoder: features -> images.
        classifier: decoded images -> logits (N, K); it must prepare colours itself.
        attack: strength; None takes the published one (eps 1.1, six steps of 0.2).
        limits: least and greatest value that features can have, such as `(0, inf)` of features out of a ReLU.
        micro_batch: most images in one pass, to save memory; None: all. It changes nothing but rounding.

    All three are used in evaluation mode, and left as they were.

    Raises:
        UserError: the images are not a batch (N, 3, H, W) of floating-point numbers, or there is not an integer label
            for each.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from advbn_gen import perturb_images
        >>> encoder, decoder = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), nn.ReLU()), nn.ConvTranspose2d(8, 3, 2, 2)
        >>> classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
        >>> found = perturb_images(
        ...     torch.rand(4, 3, 8, 8), torch.arange(4), encoder, decoder, classifier, limits=(0, float("inf"))
        ... )
        >>> found.image_N3HW.shape, found.reconstructed_N3HW.shape, found.delta_mean_C.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 3, 8, 8]), torch.Size([8]))
    """
    label_N = _checked_labels(image_N3HW, label_N, "images (N, 3, H, W)")

    def value_of(shifted_NCHW: Tensor, part: slice) -> ObjectiveValue[Tensor]:
        decoded = decoder(shifted_NCHW)
        loss_N = F.cross_entropy(classifier(decoded), label_N[part], reduction="none")
        return ObjectiveValue(loss_N, decoded.detach())

    attack = attack or AdvBNConfig()
    with _frozen(encoder, decoder, classifier):
        feat_NCHW = outputs_in_micro_batches(encoder, micro_batch)(_usable(image_N3HW))
        threat = StatisticsThreat(attack, channel_means(feat_NCHW))
        objectives = objectives_of_parts(feat_NCHW, threat.mean_C, value_of, limits=limits, micro_batch=micro_batch)
        ascent = ascend(objectives, threat, attack.steps)
    first, last = (torch.cat([value.extra for value in values]) for values in (ascent.first, ascent.last))
    return PerturbedImages(image_N3HW=last, reconstructed_N3HW=first, **_found(ascent))


def _checked_labels(batch: Tensor, label_N: Tensor, what: str) -> Tensor:
    """Return the labels of a batch as cross-entropy takes them, on the batch's device.

    Raises:
        UserError: it is no batch, or there is not an integer for each of its samples.
    """
    if batch.ndim != 4 or not len(batch):
        raise UserError(f"The batch has the shape {tuple(batch.shape)}; give {what}.")
    if not batch.is_floating_point():
        raise UserError(f"The batch is of {batch.dtype}; give {what} as floating-point numbers.")
    if label_N.shape != (len(batch),):
        raise UserError(
            f"There are {len(batch)} samples and labels of the shape {tuple(label_N.shape)}; give one each."
        )
    if label_N.is_floating_point() or label_N.is_complex() or label_N.dtype == torch.bool:
        raise UserError(f"The labels are of {label_N.dtype}; give integers.")
    return label_N.to(batch.device, torch.int64)


def _usable(batch: Tensor) -> Tensor:
    """Return a batch as autograd takes it: what was computed in inference mode is copied."""
    return batch.clone() if batch.is_inference() else batch


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
        with torch.inference_mode(mode=False), torch.no_grad():  # no gradients can be had in inference mode
            yield
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.training = mode
        for weight, learns in zip(weights, learned, strict=True):
            weight.requires_grad_(learns)
