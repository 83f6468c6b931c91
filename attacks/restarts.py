"""Several attacks on the same images, of which each image keeps the one that works on it."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from attacks.objectives import margin

Attempt = Callable[[Tensor, Tensor], Tensor]
"""Images (n, 3, H, W) and labels (n,) -> attacked images."""


def strongest(
    attempts: Iterable[Attempt], logits_of: Callable[[Tensor], Tensor], image_N3HW: Tensor, label_N: Tensor
) -> Tensor:
    """Return for each image the first attacked one that is answered wrongly, else the one with the largest margin.

    An image that is answered wrongly is not attacked again: further attempts see the others only.

    Args:
        attempts: the attacks, in order.
        logits_of: images -> logits, in evaluation mode.
        image_N3HW: images in [0, 1].
        label_N: what they show.
    """
    found = image_N3HW.clone()
    with torch.no_grad():
        margin_N = margin(logits_of(image_N3HW), label_N)
    for attempt in attempts:
        left = torch.nonzero(margin_N <= 0)[:, 0]
        if not len(left):
            break
        attacked = attempt(image_N3HW[left], label_N[left])
        with torch.no_grad():
            reached = margin(logits_of(attacked), label_N[left])
        better = reached > margin_N[left]
        found[left[better]] = attacked[better]
        margin_N[left[better]] = reached[better]
    return found
