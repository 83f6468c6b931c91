"""AdvBN: adversarial shifts of a batch's feature statistics (paper section 3; appendix B.1 for the defaults).

Legend: N images, C channels, H x W feature positions. `mu_C` is the mean over N, H and W of the clean features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ascent import Extra, Objective, ObjectiveValue, Parameters
from attacks.micro_batches import micro_batches
from basics.errors import UserError
from networks.cuts import RECTIFIED, UNLIMITED, Limits

Average = Callable[[Tensor], Tensor]
"""Mean of a tensor over all processes that share a batch."""


def one_process(value: Tensor) -> Tensor:
    """Return the mean over one process: the value itself."""
    return value


@dataclass(frozen=True, kw_only=True)
class AdvBNConfig:
    """Strength of AdvBN (paper section 3). The defaults are those of ImageNet-AdvBN (section 5.1 and appendix B.1).

    Attributes:
        eps: radius of the l-inf ball around 1 in which each multiplier stays, 0 or more; at 1.1 it may reach -0.1.
        steps: ascent steps, 0 or more; 0 leaves the features as they are.
        step_size: how far one step moves each multiplier, above 0.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> from advbn_gen import AdvBNConfig
        >>> AdvBNConfig(eps=0.5)
        AdvBNConfig(eps=0.5, steps=6, step_size=0.2)
        >>> AdvBNConfig(eps=-1)
        Traceback (most recent call last):
        basics.errors.UserError: eps is -1; give a number that is not negative (published: 1.1).
    """

    eps: float = 1.1
    steps: int = 6
    step_size: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.eps < float("inf"):
            raise UserError(f"eps is {self.eps}; give a number that is not negative (published: 1.1).")
        if self.steps < 0:
            raise UserError(f"The number of steps is {self.steps}; give 0 or more (published: 6).")
        if not 0 < self.step_size < float("inf"):
            raise UserError(f"The step size is {self.step_size}; give a number above 0 (published: 0.2).")


def channel_means(feat_NCHW: Tensor) -> Tensor:
    """Return `mu_C` as (1, C, 1, 1), the mean of each channel over batch and positions; never in half precision."""
    dtype = torch.promote_types(feat_NCHW.dtype, torch.float32)
    return feat_NCHW.mean(dim=(0, 2, 3), keepdim=True, dtype=dtype)


def multiplier_dtype(mean_C: Tensor) -> torch.dtype:
    """Return the data type of the multipliers of these means: float64 where the device has it."""
    return mean_C.dtype if mean_C.device.type == "mps" else torch.float64


def shift_statistics(
    feat_NCHW: Tensor, mean_C: Tensor, delta_mean_C: Tensor, delta_std_C: Tensor, *, limits: Limits
) -> Tensor:
    """Return `delta_std * (feat - mean) + delta_mean * mean`, held to the limits of the features.

    Computed as `delta_std * feat + (delta_mean - delta_std) * mean`: one pass over the features, and with both
    multipliers at 1 the features come back bit for bit.

    Args:
        feat_NCHW: clean features.
        mean_C: their channel means (1, C, 1, 1).
        delta_mean_C: multiplier of the means (1, C, 1, 1).
        delta_std_C: multiplier of the standard deviations (1, C, 1, 1).
        limits: least and greatest value, such as of features out of a ReLU.
    """
    offset_C = ((delta_mean_C - delta_std_C) * mean_C).to(feat_NCHW.dtype)
    shifted = torch.addcmul(offset_C, delta_std_C.to(feat_NCHW.dtype), feat_NCHW)
    if limits == RECTIFIED:
        return shifted.relu()
    return shifted if limits == UNLIMITED else shifted.clamp(*limits)


class StatisticsThreat:
    """The threat model of AdvBN: (delta_mean_C, delta_std_C), each in its own l-inf ball around 1.

    Both start at 1 (no random start), move by the sign of their gradient, and are clamped to [1 - eps, 1 + eps].

    Args:
        config: the ball and the steps.
        mean_C: channel means of this process's part of the batch (1, C, 1, 1).
        average: mean over the processes that share a batch: means and gradients are then those of the whole batch, and
            all processes move alike.
    """

    def __init__(self, config: AdvBNConfig, mean_C: Tensor, average: Average = one_process) -> None:
        self.config, self.mean_C, self.average = config, average(mean_C), average

    def start(self) -> Parameters:
        """Return multipliers of 1, in float64 where the device has it.

        Five steps of 0.2 down from 1 end within rounding of 0, where the sign of the remainder decides whether the
        ReLU passes any gradient. In float64 that remainder is the same in every precision that the networks run in.
        """
        dtype = multiplier_dtype(self.mean_C)
        return torch.ones_like(self.mean_C, dtype=dtype), torch.ones_like(self.mean_C, dtype=dtype)

    def step(self, parameters: Parameters, gradients: Parameters) -> Parameters:
        """Move by `step_size` along the sign of the gradient."""
        pairs = zip(parameters, gradients, strict=True)
        return tuple(value + self.config.step_size * self.average(gradient).sign() for value, gradient in pairs)

    def project(self, parameters: Parameters) -> Parameters:
        """Clamp to [1 - eps, 1 + eps]."""
        eps = self.config.eps
        return tuple(value.clamp(1 - eps, 1 + eps) for value in parameters)


def objectives_of_parts(
    feat_NCHW: Tensor,
    mean_C: Tensor,
    value_of: Callable[[Tensor, slice], ObjectiveValue[Extra]],
    *,
    limits: Limits,
    micro_batch: int | None = None,
) -> list[Objective[Extra]]:
    """Return what an ascent on the statistics of a batch climbs: an objective for each part of it.

    Args:
        feat_NCHW: clean features of the whole batch.
        mean_C: their channel means (1, C, 1, 1).
        value_of: (shifted features of a part, which samples of the batch these are) -> its value.
        limits: least and greatest value of the features.
        micro_batch: most samples in a part; None: one part.
    """

    def of_part(part: slice) -> Objective[Extra]:
        def objective(deltas: Parameters) -> ObjectiveValue[Extra]:
            return value_of(shift_statistics(feat_NCHW[part], mean_C, *deltas, limits=limits), part)

        return objective

    return [of_part(part) for part in micro_batches(len(feat_NCHW), micro_batch)]
