"""Snow, frost and fog against their formulas."""

import numpy as np
import pytest

from sources.drawn import blurs, weather
from tests.sources.drawn.pictures import Array, dice


@pytest.mark.parametrize("side", [56, 448])
def test_traces_of_snow_are_the_same_part_of_a_picture_of_any_size(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[float] = []

    def recorded(radius: float, spread: float, degrees: float) -> Array:
        lengths.extend([radius, spread])
        return line_kernel(radius, spread, degrees)

    line_kernel = blurs.line_kernel
    monkeypatch.setattr(weather, "line_kernel", recorded)
    weather.snow(np.zeros((side, side, 3)), dice(0), 0.1, 0.3, 3.0, 0.5, 10, 4, 0.8)
    assert lengths == pytest.approx([10 * side / 224, 4 * side / 224])


def test_fog_on_white_spans_what_the_formula_gives() -> None:
    found = weather.fog(np.ones((64, 64, 3)), dice(0), 1.5, 2.0)
    assert found.max() == pytest.approx(1)
    assert found.min() == pytest.approx(1 / 2.5)
    assert np.ptp(found, axis=2).max() < 1e-12
    grey = weather.fog(np.full((64, 64, 3), 0.5), dice(0), 1.5, 2.0)
    assert grey.max() == pytest.approx(0.5)
    assert grey.min() == pytest.approx(0.5 * 0.5 / 2.0)


def test_slower_decay_makes_fog_rougher() -> None:
    def roughness(decay: float) -> float:
        clouds = weather.plasma(64, decay, dice(0))
        assert (clouds.min(), clouds.max()) == (0, 1)
        return float(np.abs(np.diff(clouds, axis=0)).mean())

    assert roughness(1.4) > roughness(1.7) > roughness(2.0)


def test_frost_adds_a_share_of_ice_to_a_share_of_the_picture() -> None:
    picture = dice(7).random((40, 30, 3))
    ice = weather.frost(np.zeros((40, 30, 3)), dice(0), 0.7, 1.0)
    assert np.abs(weather.frost(picture, dice(0), 0.8, 0.6) - (0.8 * picture + 0.6 * ice)).max() < 1e-12
    assert 0.15 < ice.mean() < 0.6
    assert ice.max() > 0.8
    assert (ice[..., 2] >= ice[..., 0]).all()  # ice is bluish, if anything


def test_snow_without_flakes_only_pales() -> None:
    picture = dice(8).random((30, 30, 3))
    found = weather.snow(picture, dice(0), -9.0, 0.3, 3.0, 0.5, 10, 4, 0.8)
    for row, column in np.ndindex(30, 30):
        red, green, blue = picture[row, column]
        pale = 1.5 * (0.299 * red + 0.587 * green + 0.114 * blue) + 0.5
        for value, seen in zip(picture[row, column], found[row, column], strict=True):
            assert seen == pytest.approx(0.8 * value + 0.2 * max(value, pale))


def test_snow_falls_in_traces_and_lies_turned_round_as_well() -> None:
    black = np.zeros((96, 96, 3))
    traces = weather.snow(black, dice(0), 0.1, 0.3, 3.0, 0.5, 10, 4, 0.8)[..., 0] - 0.1
    assert np.abs(traces - traces[::-1, ::-1]).max() < 1e-9
    assert traces.min() > -1e-9

    # Flakes fall, within 45 degrees of straight down: neighbours above one another are more alike than side by side.
    def change(axis: int) -> float:
        shots = [weather.snow(black, dice(k), 0.1, 0.3, 3.0, 0.5, 10, 4, 0.8) for k in range(8)]
        return float(np.mean([np.abs(np.diff(shot, axis=axis)).mean() for shot in shots]))

    assert change(0) < 0.8 * change(1)
