"""AdvBN against the formula of the paper, written out again in float64."""

from collections.abc import Callable

import pytest
import torch

from attacks.ascent import ObjectiveValue, Parameters, ascend
from attacks.statistics import AdvBNConfig, StatisticsThreat, channel_means, shift_statistics
from basics.errors import UserError
from networks.cuts import RECTIFIED, UNLIMITED, Limits
from tests.support import close


@pytest.fixture
def feat() -> torch.Tensor:
    return torch.randn(5, 7, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3


def test_means_are_over_batch_and_positions(feat: torch.Tensor) -> None:
    expected = torch.tensor([sum(feat[:, c].flatten().tolist()) / (5 * 4 * 3) for c in range(7)], dtype=torch.float64)
    assert close(channel_means(feat).flatten(), expected, relative=1e-12)


@pytest.mark.parametrize("limits", [RECTIFIED, UNLIMITED, (0.0, 1.0)])
def test_shift_is_the_formula_position_by_position(feat: torch.Tensor, limits: Limits) -> None:
    dice = torch.Generator().manual_seed(1)
    delta_mean, delta_std = (torch.rand(1, 7, 1, 1, generator=dice, dtype=torch.float64) * 2.2 - 0.1 for _ in "ab")
    mean = channel_means(feat)
    expected = torch.empty_like(feat)
    for n in range(5):
        for c in range(7):
            value = delta_std[0, c] * (feat[n, c] - mean[0, c]) + delta_mean[0, c] * mean[0, c]
            held = [[min(max(each, limits[0]), limits[1]) for each in row] for row in value.tolist()]
            expected[n, c] = torch.tensor(held, dtype=torch.float64)
    found = shift_statistics(feat, mean, delta_mean, delta_std, limits=limits)
    assert close(found, expected, relative=1e-12)


def test_multipliers_of_one_give_the_features_back_bit_for_bit(feat: torch.Tensor) -> None:
    single = feat.float()
    one = torch.ones(1, 7, 1, 1)
    assert torch.equal(shift_statistics(single, channel_means(single), one, one, limits=UNLIMITED), single)


def test_shifted_statistics_are_the_multiplied_ones(feat: torch.Tensor) -> None:
    delta_mean, delta_std = torch.full((1, 7, 1, 1), 1.7), torch.full((1, 7, 1, 1), 0.4)
    shifted = shift_statistics(feat, channel_means(feat), delta_mean, delta_std, limits=UNLIMITED)
    assert close(channel_means(shifted), 1.7 * channel_means(feat), relative=1e-6)
    assert close(shifted.std(dim=(0, 2, 3)), 0.4 * feat.std(dim=(0, 2, 3)), relative=1e-6)


def linear(feat: torch.Tensor, mean: torch.Tensor) -> Callable[[Parameters], ObjectiveValue[None]]:
    """A loss whose ascent never ends: linear in the multipliers."""
    target = torch.randn(feat.shape, generator=torch.Generator().manual_seed(2), dtype=feat.dtype)

    def objective(deltas: Parameters) -> ObjectiveValue[None]:
        shifted = shift_statistics(feat, mean, *deltas, limits=UNLIMITED)
        return ObjectiveValue((shifted * target).flatten(1).sum(1), None)

    return objective


@pytest.mark.parametrize("eps", [0.0, 0.3, 1.1])
@pytest.mark.parametrize("steps", [1, 6, 9])
def test_multipliers_stay_in_their_ball_and_reach_its_border(feat: torch.Tensor, eps: float, steps: int) -> None:
    config = AdvBNConfig(eps=eps, steps=steps)
    mean = channel_means(feat)
    ascent = ascend([linear(feat, mean)], StatisticsThreat(config, mean), steps)
    reach = min(eps, steps * config.step_size)
    for delta in ascent.parameters:
        assert (delta - 1).abs().max() <= eps + 1e-12
        # The loss is linear in the multipliers, so every sign stays the same and every step counts.
        assert close((delta - 1).abs(), torch.full_like(delta, reach), relative=1e-9) if reach else True


def test_the_attack_beats_doing_nothing_and_more_steps_beat_fewer(feat: torch.Tensor) -> None:
    mean = channel_means(feat)
    threat = StatisticsThreat(AdvBNConfig(), mean)
    ends = [ascend([linear(feat, mean)], threat, steps).losses_SN[-1].sum() for steps in (0, 1, 3, 5)]
    assert ends[0] < ends[1] < ends[2] < ends[3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"steps": -1}, "steps"),
        ({"step_size": 0.0}, "step size"),
        ({"step_size": float("inf")}, "step size"),
    ],
)
def test_impossible_strengths_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdvBNConfig(**values)  # type: ignore[arg-type]


def test_the_defaults_are_the_published_ones() -> None:
    assert AdvBNConfig() == AdvBNConfig(eps=1.1, steps=6, step_size=0.2)
