"""Losses that an attack climbs: one for each sample, growing as its prediction turns wrong.

Legend: N samples, K classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from basics.errors import UserError

SampleLoss = Callable[[Tensor, Tensor], Tensor]
"""logits_NK, label_N -> loss_N."""

_ONE_CLASS = "A network with one class has no wrong prediction; attack one with two or more."
_SOFTPLUS_LIMIT = 40
"""From here on log(1 + exp(x)) is x in double precision as well."""


def cross_entropy(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Return `-log softmax(logits)[label]` in nats, (N,); what PGD climbs (Madry et al. 2018).

    Computed as `log(1 + exp(logsumexp(other logits) - own logit))`, which neither rounds to 0 nor loses its gradient
    where a network is confident: in single precision the usual form does from 17 nats of margin on, and an attack that
    follows it gets no gradient there.

    Raises:
        UserError: if there is one class only.
    """
    if logits_NK.shape[1] < 2:
        raise UserError(_ONE_CLASS)
    own = label_N[:, None]
    others_N = logits_NK.scatter(1, own, -torch.inf).logsumexp(1)
    return F.softplus(others_N - logits_NK.gather(1, own)[:, 0], threshold=_SOFTPLUS_LIMIT)


def margin(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Return the largest other logit minus the true one, (N,); above 0 where the prediction is wrong.

    Carlini & Wagner 2017 (f6 with their sign turned, not cut off at 0). Its gradient does not vanish where the network
    is confident, as that of `cross_entropy` does.

    Raises:
        UserError: if there is one class only.
    """
    if logits_NK.shape[1] < 2:
        raise UserError(_ONE_CLASS)
    own = label_N[:, None]
    other_N = logits_NK.scatter(1, own, -torch.inf).amax(1)
    return other_N - logits_NK.gather(1, own)[:, 0]
