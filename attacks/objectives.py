"""What an attack climbs: losses of one sample each that grow as an answer turns wrong.

Legend: N samples, K classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from basics.errors import UserError

Objective = Callable[[Tensor, Tensor], Tensor]
"""logits_NK, label_N -> loss_N."""


def cross_entropy(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Return `-log softmax(logits)[label]` in nats, (N,); what PGD climbs (Madry et al. 2018)."""
    return F.cross_entropy(logits_NK, label_N, reduction="none")


def margin(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Return the largest other logit minus the true one, (N,); above 0 where the answer is wrong.

    Carlini & Wagner 2017 (f6 with their sign turned, not cut off at 0). Its gradient does not vanish where the network
    is sure, as that of `cross_entropy` does.

    Raises:
        UserError: if there is one class only.
    """
    _need_classes(logits_NK, 2, "margin")
    own = label_N[:, None]
    other_N = logits_NK.scatter(1, own, -torch.inf).amax(1)
    return other_N - logits_NK.gather(1, own)[:, 0]


def dlr(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Return the difference-of-logits ratio, (N,): `margin / (z_1 - z_3)`, z sorted from the largest.

    Croce & Hein 2020, equation 3 (untargeted). It changes neither when all logits are shifted nor when they are scaled;
    it is at most 1, and above 0 where the answer is wrong. In float32 at least: the difference may be tiny.

    Raises:
        UserError: if there are fewer than three classes, where z_3 is not defined.
    """
    _need_classes(logits_NK, 3, "dlr")
    logits_NK = logits_NK.to(torch.promote_types(logits_NK.dtype, torch.float32))
    top_N3 = logits_NK.topk(3, dim=1).values
    return margin(logits_NK, label_N) / (top_N3[:, 0] - top_N3[:, 2]).clamp(min=_TINY)


_TINY = 1e-12


def _need_classes(logits_NK: Tensor, wanted: int, name: str) -> None:
    classes = logits_NK.shape[1]
    if classes < wanted:
        raise UserError(
            f"The loss {name} compares {wanted} classes, and the network has {classes}; climb cross_entropy instead."
        )
