"""An adaptive attack on ABNN: besides the target's loss it climbs the change of what the substitute provides.

The paper argues that the substitute's statistics stay clean because an attacker of the task works on the target. This
attack climbs a second term: how far statistics, scales and shifts of all layers have moved from the clean image's.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from abnn.layer import Adaptation
from abnn.network import ABNN
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


def adaptive_attack(network: nn.Module, config: PixelConfig, weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return an attack that climbs margin + weight * drift; of a network without adaptive layers, the margin alone.

    Args:
        network: images -> logits, in evaluation mode.
        config: ball and steps.
        weight: weight of the drift.
    """

    def attack(image_N3HW: Tensor, label_N: Tensor) -> Tensor:
        if not isinstance(network, ABNN):
            return attack_pixels(lambda moved: margin(network(moved), label_N), image_N3HW, config)
        with torch.no_grad():
            clean = network.adaptations(image_N3HW)

        def loss_of(moved: Tensor) -> Tensor:
            adaptations = network.adaptations(moved)
            loss_N = margin(network.logits(moved, adaptations), label_N)
            return loss_N + weight * drift(adaptations, clean, len(moved))

        return attack_pixels(loss_of, image_N3HW, config)

    return attack
