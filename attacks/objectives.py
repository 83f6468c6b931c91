"""Losses that attacks climb: logits (N, K) and labels (N,) -> loss of each sample (N,).

Cross-entropy is the one of the papers. It flattens out where a network is sure of itself, and an attack that climbs it
may then stand still; the margin does not.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Cross-entropy, as PGD climbs it (Madry et al. 2018)."""
    return F.cross_entropy(logits_NK, label_N, reduction="none")


def margin(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Largest wrong logit minus the right one: above 0 where the answer is wrong (Carlini & Wagner 2017)."""
    right_N1 = logits_NK.gather(1, label_N[:, None])
    wrong_NK = logits_NK.scatter(1, label_N[:, None], float("-inf"))
    return wrong_NK.amax(1) - right_N1[:, 0]
