"""The adaptive batch normalisation layer (ABNN paper, equation 2).

Legend: N samples; C channels of the target's feature, S of the substitute's; `...` a feature's positions: H W or T H W.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from basics.errors import UserError

Statistics = Literal["scalar", "batch", "channel"]
Encoder = Literal["pooled", "flattened"]

EPSILON = 1e-5
"""Added to variances under the root, as batch norm does: the root of 0 has no gradient."""

_NORMS = {3: nn.BatchNorm2d, 4: nn.BatchNorm3d}
"""Batch norm of a target, by the number of axes of one sample's feature."""


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """Variant of the layer of ABNN (ABNN paper, equation 2), which the paper does not fix.

    docs/choices.md has the reasons for the defaults.

    Attributes:
        statistics: over what the substitute's mean and deviation are taken: each sample's whole feature (`scalar`),
            that of all samples together (`batch`), or each channel of each sample (`channel`, where both networks have
            as many).
        encoder: input of the layer that computes scale and shift: the substitute's feature, averaged over its positions
            (`pooled`) or whole (`flattened`).

    Raises:
        UserError: there is no such variant.

    Example:
        >>> from advbn_gen import LayerConfig
        >>> LayerConfig(statistics="channel")
        LayerConfig(statistics='channel', encoder='pooled')
    """

    statistics: Statistics = "scalar"
    encoder: Encoder = "pooled"

    def __post_init__(self) -> None:
        if self.statistics not in get_args(Statistics):
            known = ", ".join(get_args(Statistics))
            raise UserError(f"There are no statistics {self.statistics!r}; give one of {known}.")
        if self.encoder not in get_args(Encoder):
            raise UserError(f"There is no encoder {self.encoder!r}; give one of {', '.join(get_args(Encoder))}.")


class Adaptation(NamedTuple):
    """Statistics, scale and shift from a substitute's feature; each can be multiplied with a target's (N, C, ...)."""

    mean: Tensor
    """mu(z_s): (N, 1, ...), (1, 1, ...) or (N, C, ...)."""
    deviation: Tensor
    """sigma(z_s): as the mean."""
    scale: Tensor
    """gamma_s: (N, C, ...)."""
    shift: Tensor
    """beta_s: (N, C, ...)."""


class EqualisedLinear(nn.Module):
    """A linear layer: weights start at N(0, 1) and are scaled by sqrt(2 / inputs) when used (Karras et al. 2018)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.factor = math.sqrt(2 / inputs)

    def forward(self, value_NS: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        return nn.functional.linear(value_NS, self.weight * self.factor, self.bias)


class AdaptiveBatchNorm(nn.Module):
    """Normalises a target's feature, and gives it statistics, scale and shift that come from a substitute's.

    ABNN paper, equation 2: `scale * (deviation * batch_norm(target) + mean) + shift`. Features are (N, channels, H, W)
    of images and (N, channels, T, H, W) of clips; those of the two networks may differ in all but N.

    Args:
        channels: C of the target's feature.
        substitute: shape (S, H, W) or (S, T, H, W) of a sample's feature in the substitute.
        config: which variant; None takes the default.

    Raises:
        UserError: the substitute's feature has no such shape, or the statistics are taken by channel, but C is not S.

    Example:
        >>> import torch
        >>> from advbn_gen import AdaptiveBatchNorm
        >>> layer = AdaptiveBatchNorm(channels=8, substitute=(4, 6, 6))
        >>> adaptation = layer.adapt(torch.rand(2, 4, 6, 6))  # by the substitute's feature
        >>> adaptation.scale.shape
        torch.Size([2, 8, 1, 1])
        >>> layer(torch.rand(2, 8, 16, 16), adaptation).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(self, channels: int, substitute: Sequence[int], config: LayerConfig | None = None) -> None:
        super().__init__()
        self.config = config or LayerConfig()
        if len(substitute) not in _NORMS:
            raise UserError(
                f"The substitute's feature has the shape {tuple(substitute)}; give (S, H, W) or (S, T, H, W)."
            )
        if self.config.statistics == "channel" and channels != substitute[0]:
            raise UserError(
                f"Statistics by channel need as many channels in both networks, but a block of the target has "
                f"{channels} and the substitute's has {substitute[0]}; give scalar or batch."
            )
        self.norm = _NORMS[len(substitute)](channels, eps=EPSILON)
        inputs = substitute[0] if self.config.encoder == "pooled" else math.prod(substitute)
        self.encode = EqualisedLinear(inputs, 2 * channels)
        with torch.no_grad():
            self.encode.bias[:channels] = 1

    def adapt(self, substitute: Tensor) -> Adaptation:
        """Return the adaptation by a substitute's feature (N, S, ...). No gradient is cut: attacks pass through it."""
        positions = tuple(range(2, substitute.ndim))
        over = {"scalar": (1, *positions), "batch": (0, 1, *positions), "channel": positions}[self.config.statistics]
        variance, mean = torch.var_mean(substitute, over, correction=0, keepdim=True)
        value_NS = substitute.mean(positions) if self.config.encoder == "pooled" else substitute.flatten(1)
        scale, shift = self.encode(value_NS)[(..., *[None] * len(positions))].chunk(2, dim=1)
        return Adaptation(mean, (variance + EPSILON).sqrt(), scale, shift)

    def forward(self, target: Tensor, adaptation: Adaptation) -> Tensor:
        """Return z'_t for a target's feature z_t: both (N, C, ...)."""
        mean, deviation, scale, shift = adaptation
        adapted: Tensor = scale * (deviation * self.norm(target) + mean) + shift
        return adapted
