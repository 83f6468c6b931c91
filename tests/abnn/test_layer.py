"""Equation 2 against loops over single samples in float64, for every variant."""

import math

import pytest
import torch
from torch import Tensor, nn

from abnn.layer import AdaptiveBatchNorm, EqualisedLinear, LayerConfig
from basics.errors import UserError
from tests.support import seeded

N, C, H = 3, 4, 5
EPSILON = 1e-5


def features(channels: int, side: int, seed: int) -> Tensor:
    dice = torch.Generator().manual_seed(seed)
    return torch.randn(N, channels, side, side, dtype=torch.float64, generator=dice) * 2 + 0.5


def layer_of(statistics: str, encoder: str, substitute: tuple[int, ...]) -> AdaptiveBatchNorm:
    with seeded(0):
        layer = AdaptiveBatchNorm(C, substitute, LayerConfig(statistics=statistics, encoder=encoder)).double()  # type: ignore[arg-type]
    norm = layer.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    nn.init.uniform_(norm.running_mean, -1, 1)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.normal_(layer.encode.bias)
    return layer


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values) + EPSILON)


@torch.no_grad()
def equation_2(layer: AdaptiveBatchNorm, target: Tensor, substitute: Tensor, *, training: bool) -> Tensor:
    """z' = gamma_s * (sigma(z_s) * BN(z_t) + mu(z_s)) + beta_s, written out for each value."""
    config, norm, out = layer.config, layer.norm, torch.zeros_like(target)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, factor = layer.encode.weight, math.sqrt(2 / layer.encode.weight.shape[1])
    for sample in range(N):
        if config.encoder == "pooled":
            values = [float(plane.mean()) for plane in substitute[sample]]
        else:
            values = substitute[sample].reshape(-1).tolist()
        codes = [
            factor * math.fsum(float(w) * t for w, t in zip(row, values, strict=True)) + float(bias)
            for row, bias in zip(weight, layer.encode.bias, strict=True)
        ]
        for channel in range(C):
            plane = substitute[sample][channel % substitute.shape[1]]
            over = {"scalar": substitute[sample], "batch": substitute, "channel": plane}[config.statistics]
            mean_s, deviation_s = mean_and_deviation(over.reshape(-1).tolist())
            if training:
                mean_t, deviation_t = mean_and_deviation(target[:, channel].reshape(-1).tolist())
            else:
                mean_t = float(norm.running_mean[channel])
                deviation_t = math.sqrt(float(norm.running_var[channel]) + EPSILON)
            inner = float(norm.weight[channel]) * (target[sample, channel] - mean_t) / deviation_t
            inner = inner + float(norm.bias[channel])
            out[sample, channel] = codes[channel] * (deviation_s * inner + mean_s) + codes[C + channel]
    return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("encoder", ["pooled", "flattened"])
@pytest.mark.parametrize("statistics", ["scalar", "batch", "channel"])
def test_a_layer_is_equation_2(statistics: str, encoder: str, training: bool) -> None:
    channels = C if statistics == "channel" else 6
    layer = layer_of(statistics, encoder, (channels, 3, 3)).train(training)
    target, substitute = features(C, H, 1), features(channels, 3, 2)
    expected = equation_2(layer, target, substitute, training=training)
    with torch.no_grad():
        found = layer(target, layer.adapt(substitute))
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    # The variants are not the same by accident.
    assert not torch.allclose(found, layer.norm(target).detach(), atol=1e-2)


def test_clips_are_treated_as_images_are() -> None:
    with seeded(0):
        layer = AdaptiveBatchNorm(C, (6, 2, 3, 3)).double().eval()
    dice = torch.Generator().manual_seed(3)
    target = torch.randn(N, C, 2, H, H, dtype=torch.float64, generator=dice)
    substitute = torch.randn(N, 6, 2, 3, 3, dtype=torch.float64, generator=dice)
    found = layer(target, layer.adapt(substitute))
    with seeded(0):
        flat = AdaptiveBatchNorm(C, (6, 6, 3)).double().eval()
    flat.load_state_dict(layer.state_dict())
    same = flat(target.flatten(3), flat.adapt(substitute.reshape(N, 6, 6, 3)))
    assert torch.allclose(found.flatten(3), same, atol=1e-12)


def test_a_fresh_layer_scales_by_about_1_and_shifts_by_about_0() -> None:
    with seeded(0):
        encode = EqualisedLinear(400, 50)
    layer = AdaptiveBatchNorm(C, (8, 2, 2))
    assert torch.equal(layer.encode.bias, torch.tensor([1.0] * C + [0.0] * C))
    # N(0, 1) weights times sqrt(2 / inputs): the variance of what comes out is twice the mean square of what goes in.
    value = torch.randn(2000, 400, generator=torch.Generator().manual_seed(1))
    assert float(encode(value).detach().var()) == pytest.approx(2, rel=0.1)
    assert float(encode.weight.detach().std()) == pytest.approx(1, rel=0.02)


def test_a_feature_without_variance_has_gradients() -> None:
    layer = AdaptiveBatchNorm(C, (6, 1, 1), LayerConfig(statistics="scalar"))
    substitute = torch.zeros(2, 6, 1, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer.adapt(substitute).deviation.sum(), substitute)
    assert bool(gradient.isfinite().all())


def test_statistics_by_channel_need_as_many_channels() -> None:
    with pytest.raises(UserError, match="has 4 and the substitute's has 6"):
        AdaptiveBatchNorm(C, (6, 3, 3), LayerConfig(statistics="channel"))


@pytest.mark.parametrize("words", [{"statistics": "none"}, {"encoder": "deep"}])
def test_unknown_variants_are_refused(words: dict[str, str]) -> None:
    with pytest.raises(UserError, match="give"):
        LayerConfig(**words)  # type: ignore[arg-type]


def test_a_feature_without_positions_is_refused() -> None:
    with pytest.raises(UserError, match=r"has the shape \(6,\); give \(S, H, W\) or \(S, T, H, W\)"):
        AdaptiveBatchNorm(4, (6,))
