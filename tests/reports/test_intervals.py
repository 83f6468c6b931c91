"""Intervals against closed forms and plain resampling."""

import math

import numpy as np
import pytest

from reports.intervals import Estimate, accuracy, gap


def bits(ones: int, total: int) -> np.ndarray:
    return np.arange(total) < ones


@pytest.mark.parametrize(("ones", "total"), [(0, 10), (1, 1), (7, 10), (380, 500), (25_000, 50_000)])
def test_wilsons_interval_in_closed_form(ones: int, total: int) -> None:
    z, share = 1.959963984540054, ones / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    found = accuracy(bits(ones, total))
    assert found.value == share
    assert found.low == pytest.approx(max(0, centre - half), abs=1e-12)
    assert found.high == pytest.approx(min(1, centre + half), abs=1e-12)


@pytest.mark.slow
def test_the_gaps_interval_is_that_of_resampled_samples() -> None:
    dice = np.random.default_rng(1)
    before, after = dice.random(400) < 0.8, dice.random(400) < 0.5
    found = gap(before, after)
    assert found.value == pytest.approx(before.mean() - after.mean())
    drawn = []
    for _ in range(10_000):
        chosen = dice.integers(400, size=400)
        drawn.append(before[chosen].mean() - after[chosen].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)


def test_pairing_matters() -> None:
    """The same accuracies: where the same samples are correct, the interval of the gap is far narrower."""
    before = bits(300, 500)
    nested, shifted = bits(280, 500), np.roll(bits(280, 500), 200)
    assert gap(before, nested).value == gap(before, shifted).value
    widths = [estimate.high - estimate.low for estimate in (gap(before, nested), gap(before, shifted))]
    assert widths[0] < widths[1] / 2


def test_no_difference_is_no_gap() -> None:
    same = bits(3, 10)
    assert gap(same, same) == Estimate(0, 0, 0)
