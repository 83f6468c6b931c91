"""One batch through the autoencoder with AdvBN inside (section 3): all the arithmetic of the main job.

The statistics are always those of the whole batch. The networks may be passed by parts of it (micro-batches), which
takes less memory.

Legend: N images of the batch, C feature channels, K classes, S steps and the state before them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.ascent import ObjectiveValue, Values, ascend
from attacks.micro_batches import outputs_in_micro_batches
from attacks.statistics import (
    AdvBNConfig,
    StatisticsThreat,
    channel_means,
    multiplier_dtype,
    objectives_of_parts,
    shift_statistics,
)
from basics.compute import Compute
from basics.errors import WorkError
from basics.software import REVISION
from decoders.adain import UpsampledConv
from decoders.autoencoder import Autoencoder
from networks.cuts import Limits
from pipeline.compiled import CompiledForSize
from pipeline.transfers import Arrivals, to_device

PIXEL_MAXIMUM = 255


class DecoderOutput(NamedTuple):
    """Result of a forward pass from features through decoder and classifier."""

    image_N3HW: Tensor
    """Decoded images as the classifier sees them: meant for [0, 1], but not clamped to it."""
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


@dataclass(frozen=True, kw_only=True)
class PendingBatch:
    """A batch whose work has been given to the device, which may still be at it."""

    batch: PerturbedBatch
    """The results, as they will be once they have arrived; see `result`."""
    arrivals: Arrivals

    @classmethod
    def of(cls, batch: PerturbedBatch) -> Self:
        """Return results that are there already."""
        return cls(batch=batch, arrivals=Arrivals())

    def result(self) -> PerturbedBatch:
        """Return the results; waits for them.

        Raises:
            WorkError: a loss is not finite.
        """
        self.arrivals.wait()
        batch = self.batch
        if not bool(batch.losses_SN.isfinite().all()):
            raise WorkError("the loss is not a number; check the weights of the autoencoder and of the classifier.")
        # Here and not on the device, because mps has no float64.
        return replace(
            batch,
            delta_mean_C=batch.delta_mean_C.double(),
            delta_std_C=batch.delta_std_C.double(),
            losses_SN=batch.losses_SN.double(),
        )


class Shifter:
    """An autoencoder, ready on a device: images to features, and features with other statistics to images.

    Args:
        autoencoder: the network.
        compute: device and precision.
        micro_batch: most images in one pass; None passes a batch as a whole.
        compiled_size: images in the passes that networks are compiled for; None compiles none.
        revision: revision of the arithmetic, see `basics.software.REVISION`.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        compute: Compute,
        micro_batch: int | None = None,
        compiled_size: int | None = None,
        revision: int = REVISION,
    ) -> None:
        self.autoencoder, self.compute, self.micro_batch = autoencoder, compute, micro_batch
        self._compiled_size = compiled_size
        for layer in autoencoder.decoder.modules():
            if isinstance(layer, UpsampledConv):
                layer.layout = torch.contiguous_format if revision < REVISION else None
        self._encoder, self._decoder = self.ready(autoencoder.encoder), self.ready(autoencoder.decoder)

    def ready(self, network: nn.Module) -> nn.Module:
        """Put a network on the device, in evaluation mode and without gradients, and return it to be passed."""
        # channels_last is the layout that convolutions are fastest in, on CPUs and on GPUs.
        network.to(self.compute.device, self.compute.dtype).to(memory_format=torch.channels_last)
        network.eval().requires_grad_(False)
        return network if self._compiled_size is None else CompiledForSize(network, self._compiled_size)

    @property
    def ahead(self) -> int:
        """Batches that are given to the device before the results of the one before are taken from it."""
        return 1 if self.compute.device.type == "cuda" else 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Set the kernels and the precision of the run; gradients are off unless they are enabled inside."""
        with self.compute.kernels(), self.compute.autocast(), torch.no_grad():
            yield

    def on_device(self, image_N3HW: Tensor) -> Tensor:
        """Return 8-bit images as the networks take them: in [0, 1] and on the device."""
        moved = to_device(image_N3HW, self.compute.device).contiguous(memory_format=torch.channels_last)
        return moved.to(self.compute.dtype) / PIXEL_MAXIMUM

    def features(self, original_N3HW: Tensor) -> Tensor:
        """Return the features (N, C, H, W) of images that are on the device."""
        # Statistics and deltas stay in full precision, also when autocast made the features bf16.
        feat: Tensor = outputs_in_micro_batches(self._encoder, self.micro_batch)(original_N3HW)
        return feat.to(self.compute.dtype)

    @property
    def limits(self) -> Limits:
        """Least and greatest value of the features."""
        return self.autoencoder.kind.limits

    def decode(self, feat_NCHW: Tensor) -> Tensor:
        """Return the images of features, in one pass."""
        decoded: Tensor = self._decoder(feat_NCHW).to(self.compute.dtype)
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
                to_device(delta_C.to(multiplier_dtype(mean_C)), mean_C.device).view_as(mean_C)
                for delta_C in (delta_mean_C, delta_std_C)
            )

            def shift_and_decode(part_NCHW: Tensor) -> Tensor:
                return self.decode(shift_statistics(part_NCHW, mean_C, *deltas, limits=self.limits))

            decoded = outputs_in_micro_batches(shift_and_decode, self.micro_batch)(feat)
            if not bool(decoded.isfinite().all()):
                raise WorkError("an image has values that are not numbers; give a smaller --scale.")
            return to_pixels(decoded).cpu()


class Perturber:
    """An autoencoder and the classifier that its features are perturbed against, ready on a device."""

    def __init__(self, shifter: Shifter, classifier: nn.Module) -> None:
        self._shifter, self._classifier = shifter, shifter.ready(classifier)

    def __call__(self, image_N3HW: Tensor, label_N: Tensor, attack: AdvBNConfig) -> PerturbedBatch:
        """Perturb one batch, and wait for the result; see `begin`.

        Raises:
            WorkError: a loss is not finite.
        """
        return self.begin(image_N3HW, label_N, attack).result()

    def begin(self, image_N3HW: Tensor, label_N: Tensor, attack: AdvBNConfig) -> PendingBatch:
        """Begin to perturb one batch. On a CUDA device this returns while the device works; elsewhere, when it is done.

        Args:
            image_N3HW: 8-bit originals.
            label_N: their true labels.
            attack: strength of the perturbation.

        The statistics are those of this batch as it is: an image's result depends on its neighbours.
        """
        shifter = self._shifter
        with shifter.working():
            original = shifter.on_device(image_N3HW)
            label_N = to_device(label_N, original.device)
            predicted = outputs_in_micro_batches(lambda part: self._classifier(part).argmax(1), shifter.micro_batch)
            clean_N = predicted(original)
            feat = shifter.features(original)
            threat = StatisticsThreat(attack, channel_means(feat))
            objectives = objectives_of_parts(
                feat, threat.mean_C, partial(self._value, label_N), limits=shifter.limits,
                micro_batch=shifter.micro_batch,
            )  # fmt: skip
            ascent = ascend(objectives, threat, attack.steps)
            first, last = _joined(ascent.first), _joined(ascent.last)
            arrivals = Arrivals()
            delta_mean, delta_std = (arrivals.to_host(delta.flatten()) for delta in ascent.parameters)
            batch = PerturbedBatch(
                perturbed_N3HW=arrivals.to_host(to_pixels(last.image_N3HW)),
                reconstructed_N3HW=arrivals.to_host(to_pixels(first.image_N3HW)),
                delta_mean_C=delta_mean,
                delta_std_C=delta_std,
                losses_SN=arrivals.to_host(ascent.losses_SN),
                clean_N=arrivals.to_host(clean_N),
                reconstructed_N=arrivals.to_host(first.logits_NK.argmax(1)),
                adversarial_N=arrivals.to_host(last.logits_NK.argmax(1)),
            )
        return PendingBatch(batch=batch, arrivals=arrivals)

    def _value(self, label_N: Tensor, shifted_NCHW: Tensor, part: slice) -> ObjectiveValue[DecoderOutput]:
        """Return the loss of a part of the batch whose labels are given, and what it was decoded to."""
        decoded = self._shifter.decode(shifted_NCHW)
        logits = self._classifier(decoded).to(decoded.dtype)
        loss_N = F.cross_entropy(logits, label_N[part], reduction="none")
        return ObjectiveValue(loss_N, DecoderOutput(decoded.detach(), logits.detach()))


def _joined(values: Values[DecoderOutput]) -> DecoderOutput:
    """Return what the parts of a batch were decoded to, as one."""
    if len(values) == 1:
        return values[0].extra
    parts = [value.extra for value in values]
    return DecoderOutput(torch.cat([part.image_N3HW for part in parts]), torch.cat([part.logits_NK for part in parts]))


def to_pixels(image_N3HW: Tensor) -> Tensor:
    """Return 8-bit images, rounded as torchvision's `save_image` does: x 255, + 0.5, clamp, truncate."""
    return image_N3HW.mul(PIXEL_MAXIMUM).add(0.5).clamp(0, PIXEL_MAXIMUM).to(torch.uint8)
