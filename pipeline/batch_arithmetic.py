"""One batch through the autoencoder with AdvBN inside (section 3): all the arithmetic of the main job.

Legend: N images of the batch, C feature channels, K classes, S steps and the state before them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.ascent import ObjectiveValue, Parameters, ascend
from attacks.statistics import AdvBNConfig, StatisticsThreat, channel_means, multiplier_dtype, shift_statistics
from basics.compute import Compute
from basics.errors import WorkError
from decoders.autoencoder import Autoencoder

PIXEL_MAXIMUM = 255


class DecoderOutput(NamedTuple):
    """Result of a forward pass from features through decoder and classifier."""

    image_N3HW: Tensor
    """Decoded images in [0, 1] before clamping."""
    logits_NK: Tensor
    """Outputs of the classifier on them."""


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
    """The classifier's predictions on the originals."""
    reconstructed_N: Tensor
    """The classifier's predictions on the reconstructions."""
    adversarial_N: Tensor
    """The classifier's predictions on the perturbed images as they were attacked: before rounding to 8 bit."""


class Shifter:
    """An autoencoder, ready on a device: images to features, and features with other statistics to images."""

    def __init__(self, autoencoder: Autoencoder, compute: Compute) -> None:
        self.autoencoder, self.compute = autoencoder, compute
        _make_ready(autoencoder, compute)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Set the kernels and the precision of the run; gradients are off unless they are enabled inside."""
        with self.compute.kernels(), self.compute.autocast(), torch.no_grad():
            yield

    def on_device(self, image_N3HW: Tensor) -> Tensor:
        """Return 8-bit images as the networks take them: in [0, 1] and on the device."""
        moved = image_N3HW.to(self.compute.device).contiguous(memory_format=torch.channels_last)
        return moved.to(self.compute.dtype) / PIXEL_MAXIMUM

    def features(self, original_N3HW: Tensor) -> Tensor:
        """Return the features (N, C, H, W) of images that are on the device."""
        # Statistics and deltas stay in full precision, also when autocast made the features bf16.
        feat: Tensor = self.autoencoder.encoder(original_N3HW).to(self.compute.dtype)
        return feat

    def decode(self, feat_NCHW: Tensor, mean_C: Tensor, deltas: Parameters) -> Tensor:
        """Return the images of features with statistics multiplied by `deltas`: of means and of standard deviations."""
        shifted = shift_statistics(feat_NCHW, mean_C, *deltas, limits=self.autoencoder.kind.limits)
        decoded: Tensor = self.autoencoder.decoder(shifted).to(self.compute.dtype)
        return decoded

    def shifted(self, image_N3HW: Tensor, delta_mean_C: Tensor, delta_std_C: Tensor) -> Tensor:
        """Return the 8-bit images that 8-bit originals become when their features are shifted by known multipliers (C).

        Bit for bit the images of an ascent that ended at these multipliers on the same batch.

        Raises:
            WorkError: the multipliers are so large that an image has values that are not finite.
        """
        with self.working():
            feat = self.features(self.on_device(image_N3HW))
            mean_C = channel_means(feat)
            deltas = tuple(
                delta_C.to(mean_C.device, multiplier_dtype(mean_C)).view_as(mean_C)
                for delta_C in (delta_mean_C, delta_std_C)
            )
            decoded = self.decode(feat, mean_C, deltas)
            if not bool(decoded.isfinite().all()):
                raise WorkError("an image has values that are not numbers; give a smaller --scale.")
            return to_pixels(decoded)


class Perturber:
    """An autoencoder and the classifier that it is turned against, ready on a device."""

    def __init__(self, shifter: Shifter, classifier: nn.Module) -> None:
        self._shifter, self.classifier = shifter, classifier
        _make_ready(classifier, shifter.compute)

    def __call__(self, image_N3HW: Tensor, label_N: Tensor, attack: AdvBNConfig) -> PerturbedBatch:
        """Perturb one batch.

        Args:
            image_N3HW: 8-bit originals.
            label_N: their true labels.
            attack: strength of the perturbation.

        The statistics are those of this batch as it is: an image's result depends on its neighbours.

        Raises:
            WorkError: a loss is not finite.
        """
        shifter = self._shifter
        with shifter.working():
            original = shifter.on_device(image_N3HW)
            label_N = label_N.to(original.device)
            clean_N = self.classifier(original).argmax(1)
            feat = shifter.features(original)
            threat = StatisticsThreat(attack, channel_means(feat))

            def objective(deltas: Parameters) -> ObjectiveValue[DecoderOutput]:
                decoded = shifter.decode(feat, threat.mean_C, deltas)
                logits = self.classifier(decoded).to(decoded.dtype)
                loss_N = F.cross_entropy(logits, label_N, reduction="none")
                return ObjectiveValue(loss_N, DecoderOutput(decoded.detach(), logits.detach()))

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


def _make_ready(network: nn.Module, compute: Compute) -> None:
    # channels_last is the layout that convolutions are fastest in, on CPUs and on GPUs.
    network.to(compute.device, compute.dtype).to(memory_format=torch.channels_last)
    network.eval().requires_grad_(False)


def to_pixels(image_N3HW: Tensor) -> Tensor:
    """Return 8-bit images on the CPU, rounded as torchvision's `save_image` does: x 255, + 0.5, clamp, truncate."""
    return image_N3HW.mul(PIXEL_MAXIMUM).add(0.5).clamp(0, PIXEL_MAXIMUM).to("cpu", torch.uint8)
