"""An adaptive attack on ABNN: besides the target's loss it climbs the change of what the substitute provides.

The paper argues that the substitute's statistics stay clean because an attacker of the task works on the target. This
attack climbs a second term: how far statistics, scales and shifts of all layers have moved from the clean image's.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from abnn.layer import Adaptation
from abnn.network import ABNN
from attacks.micro_batches import in_micro_batches, micro_batches
from attacks.objectives import margin
from attacks.pixels import PixelConfig, attack_pixels

_TINY = 1e-12


def drift(adaptations: Sequence[Adaptation], clean: Sequence[Adaptation], count: int) -> Tensor:
    """Return how far adaptations of N images are from those of clean ones: squared distance by squared length.

    The mean over the layers and their four parts; (N,).

    Args:
        adaptations: adaptations of the attacked images.
        clean: adaptations of the images before the attack.
        count: N; statistics of a whole batch count for each image.
    """
    parts = []
    for now, before in zip(adaptations, clean, strict=True):
        for value, reference in zip(now, before, strict=True):
            distance = (value - reference).flatten(1).square().sum(1)
            parts.append((distance / reference.flatten(1).square().sum(1).clamp(min=_TINY)).expand(count))
    return torch.stack(parts).mean(0)


def adaptive_attack(
    network: nn.Module, config: PixelConfig, weight: float, micro_batch: int | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return an attack that climbs margin + weight * drift; of a network without adaptive layers, the margin alone.

    Args:
        network: images -> logits, in evaluation mode.
        config: ball and steps.
        weight: weight of the drift.
        micro_batch: most samples in one pass; None passes the whole batch.
    """

    def attack(image_N3HW: Tensor, label_N: Tensor) -> Tensor:
        if not isinstance(network, ABNN):
            plain = in_micro_batches(lambda moved, part: margin(network(moved), label_N[part]), micro_batch)
            return attack_pixels(plain, image_N3HW, config)
        with torch.no_grad():
            clean = {
                part.start: network.adaptations(image_N3HW[part])
                for part in micro_batches(len(image_N3HW), micro_batch)
            }

        def loss_of(moved: Tensor, part: slice) -> Tensor:
            adaptations = network.adaptations(moved)
            loss_N = margin(network.logits(moved, adaptations), label_N[part])
            return loss_N + weight * drift(adaptations, clean[part.start], len(moved))

        return attack_pixels(in_micro_batches(loss_of, micro_batch), image_N3HW, config)

    return attack
