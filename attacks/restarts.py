"""Several attempts at the same samples, of which the best counts: restarts of one attack, or different attacks.

Legend: N samples, K classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.objectives import Objective, cross_entropy

Attempt = Callable[[Tensor, Tensor], Tensor]
"""image_N3HW, label_N -> perturbed image_N3HW, of any part of a batch."""


@dataclass(frozen=True)
class Outcome:
    """The strongest of several attempts at each sample."""

    image_N3HW: Tensor
    """The first image that fooled the network; where none did, the one with the largest loss."""
    loss_N: Tensor
    """Its loss."""
    fooled_N: Tensor
    """Whether the network's answer to it is wrong."""


def strongest(
    attempts: Iterable[Attempt],
    logits_of: Callable[[Tensor], Tensor],
    image_N3HW: Tensor,
    label_N: Tensor,
    objective: Objective = cross_entropy,
) -> Outcome:
    """Run the attempts one after the other, each on those samples alone that have not been fooled yet.

    The clean images count as the first attempt: what the network gets wrong anyway is not attacked, and the share of
    samples that are not fooled is the accuracy under attack. So each answer must depend on its own sample alone: the
    network is in evaluation mode, and nothing in it looks at the batch. Random starts come from torch's global
    generator, and `[attack] * 5` is five restarts.

    Args:
        attempts: what to try.
        logits_of: image_N3HW -> logits_NK, for any part of the batch.
        image_N3HW: clean images.
        label_N: the right answers.
        objective: what the attempts are compared by as long as none fools.
    """
    image, (loss, fooled) = image_N3HW.detach().clone(), _judge(logits_of, objective, image_N3HW, label_N)
    for attempt in attempts:
        left = (~fooled).nonzero()[:, 0]
        if not len(left):
            break
        found = attempt(image_N3HW[left], label_N[left])
        found_loss, found_fooled = _judge(logits_of, objective, found, label_N[left])
        better = found_fooled | (found_loss > loss[left])
        changed = left[better]
        image[changed], loss[changed], fooled[changed] = found[better], found_loss[better], found_fooled[better]
    return Outcome(image, loss, fooled)


@torch.no_grad()
def _judge(
    logits_of: Callable[[Tensor], Tensor], objective: Objective, image_N3HW: Tensor, label_N: Tensor
) -> tuple[Tensor, Tensor]:
    logits_NK = logits_of(image_N3HW)
    return objective(logits_NK, label_N), logits_NK.argmax(1) != label_N
