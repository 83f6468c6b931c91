"""Several attempts on the same samples, of which the strongest counts: restarts of one attack, or several attacks.

Legend: N samples, K classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.objectives import SampleLoss, cross_entropy

Attempt = Callable[[Tensor, Tensor], Tensor]
"""image_N3HW, label_N -> perturbed image_N3HW, of any part of a batch."""


@dataclass(frozen=True)
class RestartsResult:
    """The strongest of several attempts on each sample."""

    image_N3HW: Tensor
    """The first image that fooled the network; where none did, the one with the largest loss."""
    loss_N: Tensor
    """Loss of each of these images, (N,)."""
    fooled_N: Tensor
    """Whether the network's prediction for it is wrong."""


def strongest(
    attempts: Iterable[Attempt],
    logits_of: Callable[[Tensor], Tensor],
    image_N3HW: Tensor,
    label_N: Tensor,
    objective: SampleLoss = cross_entropy,
) -> RestartsResult:
    """Run the attempts one after the other, each on those samples alone that have not been fooled yet.

    The clean images count as the first attempt: samples that are misclassified without an attack are not attacked, and
    the share of samples that are not fooled is the accuracy under attack. So each prediction must depend on its own
    sample alone: the network is in evaluation mode, and no layer uses statistics of the batch. Random starts come from
    torch's global generator, and `[attack] * 5` is five restarts.

    Args:
        attempts: the attacks to run.
        logits_of: image_N3HW -> logits_NK, for any part of the batch.
        image_N3HW: clean images.
        label_N: true classes.
        objective: loss by which attempts are compared as long as none fools the network.
    """
    image, (loss, fooled) = image_N3HW.detach().clone(), _evaluate(logits_of, objective, image_N3HW, label_N)
    for attempt in attempts:
        remaining = (~fooled).nonzero()[:, 0]
        if not len(remaining):
            break
        found = attempt(image_N3HW[remaining], label_N[remaining])
        found_loss, found_fooled = _evaluate(logits_of, objective, found, label_N[remaining])
        better = found_fooled | (found_loss > loss[remaining])
        changed = remaining[better]
        image[changed], loss[changed], fooled[changed] = found[better], found_loss[better], found_fooled[better]
    return RestartsResult(image, loss, fooled)


@torch.no_grad()
def _evaluate(
    logits_of: Callable[[Tensor], Tensor], objective: SampleLoss, image_N3HW: Tensor, label_N: Tensor
) -> tuple[Tensor, Tensor]:
    logits_NK = logits_of(image_N3HW)
    return objective(logits_NK, label_N), logits_NK.argmax(1) != label_N
