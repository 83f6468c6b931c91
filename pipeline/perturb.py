"""One batch through the autoencoder with AdvBN inside: all the arithmetic of the main job.

Legend: N images of the batch, C feature channels, S steps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.ascent import Evaluation, Parameters, ascend
from attacks.statistics import AdvBNConfig, StatisticsThreat, channel_means, shift_statistics
from basics.compute import Compute
from basics.errors import WorkError
from decoders.autoencoder import Autoencoder

PIXEL_MAXIMUM = 255


class Decoded(NamedTuple):
    """What one forward pass behind the features makes."""

    image_N3HW: Tensor
    logits_NK: Tensor


@dataclass(frozen=True, kw_only=True)
class PerturbedBatch:
    """A batch's results, on the CPU."""

    perturbed_N3HW: Tensor
    """8-bit perturbed images."""
    reconstructed_N3HW: Tensor
    """8-bit images through the same autoencoder without perturbation."""
    delta_mean_C: Tensor
    """float64 multipliers of the channel means."""
    delta_std_C: Tensor
    """float64 multipliers of the channel standard deviations."""
    losses_SN: Tensor
    """float64 cross-entropy of each image before the first and after each step: (steps + 1, N)."""
    clean_N: Tensor
    """Classifier's prediction on the originals."""
    reconstructed_N: Tensor
    """... on the reconstructions."""
    adversarial_N: Tensor
    """... on the perturbed images, as attacked: before rounding to 8 bit."""


class Perturber:
    """An autoencoder and the classifier that it is turned against, ready on a device."""

    def __init__(self, autoencoder: Autoencoder, classifier: nn.Module, compute: Compute) -> None:
        self.compute = compute
        # channels_last is the layout that convolutions are fastest in, on CPUs and on GPUs.
        for network in (autoencoder, classifier):
            network.to(compute.device, compute.dtype).to(memory_format=torch.channels_last)
            network.eval().requires_grad_(False)
        self.autoencoder, self.classifier = autoencoder, classifier

    def __call__(self, image_N3HW: Tensor, label_N: Tensor, attack: AdvBNConfig) -> PerturbedBatch:
        """Perturb one batch.

        Args:
            image_N3HW: 8-bit originals.
            label_N: their true labels.
            attack: strength of the perturbation.

        The statistics are those of this batch as it is: an image's result depends on its neighbours.

        Raises:
            WorkError: a loss is not a number.
        """
        with self.compute.kernels(), self.compute.autocast(), torch.no_grad():
            original = self._on_device(image_N3HW)
            label_N = label_N.to(self.compute.device)
            clean_N = self.classifier(original).argmax(1)
            feat = self.autoencoder.encoder(original)
            # Statistics and deltas stay in full precision, also when autocast made the features bf16.
            feat = feat.to(self.compute.dtype)
            threat = StatisticsThreat(attack, channel_means(feat))

            def objective(deltas: Parameters) -> Evaluation[Decoded]:
                rectified = self.autoencoder.kind.rectified
                shifted = shift_statistics(feat, threat.mean_C, *deltas, rectified=rectified)
                decoded = self.autoencoder.decoder(shifted).to(self.compute.dtype)
                logits = self.classifier(decoded).to(self.compute.dtype)
                loss_N = F.cross_entropy(logits, label_N, reduction="none")
                return Evaluation(loss_N, Decoded(decoded.detach(), logits.detach()))

            ascent = ascend(objective, threat, attack.steps)
            if not bool(ascent.losses_SN.isfinite().all()):
                raise WorkError("the loss is not a number; check the weights of the autoencoder and of the classifier.")
        first, last = ascent.first.extra, ascent.last.extra
        delta_mean, delta_std = (delta.flatten().cpu().double() for delta in ascent.parameters)
        return PerturbedBatch(
            perturbed_N3HW=to_pixels(last.image_N3HW),
            reconstructed_N3HW=to_pixels(first.image_N3HW),
            delta_mean_C=delta_mean,
            delta_std_C=delta_std,
            losses_SN=ascent.losses_SN.cpu().double(),
            clean_N=clean_N.cpu(),
            reconstructed_N=first.logits_NK.argmax(1).cpu(),
            adversarial_N=last.logits_NK.argmax(1).cpu(),
        )

    def _on_device(self, image_N3HW: Tensor) -> Tensor:
        moved = image_N3HW.to(self.compute.device).contiguous(memory_format=torch.channels_last)
        return moved.to(self.compute.dtype) / PIXEL_MAXIMUM


def to_pixels(image_N3HW: Tensor) -> Tensor:
    """Return 8-bit images on the CPU, rounded as torchvision's `save_image` does: x 255, + 0.5, clamp, truncate."""
    return image_N3HW.mul(PIXEL_MAXIMUM).add(0.5).clamp(0, PIXEL_MAXIMUM).to("cpu", torch.uint8)
