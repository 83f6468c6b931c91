"""The fifteen corruptions: order of severities, repeatability, noise and digital ones."""

import colorsys
import io
import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from basics.errors import UserError
from sources.drawn.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from sources.drawn.source import DrawnSource
from tests.sources.drawn.pictures import dice

pytestmark = pytest.mark.slow

UNORDERED = {"glass_blur", "snow", "frost", "fog", "elastic_transform"}
GROUPS = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
}


def flat(value: int, side: int = 200) -> npt.NDArray[np.uint8]:
    return np.full((side, side, 3), value, np.uint8)


def colourful(height: int = 12, width: int = 10) -> npt.NDArray[np.uint8]:
    return dice(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def drawings() -> list[npt.NDArray[np.uint8]]:
    source = DrawnSource(size=48)
    return [np.asarray(Image.open(io.BytesIO(source.read(record)))) for record in source.records[::8]]


def difference(name: str, severity: int, number: int, index: int, image: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(corrupt(image, name, severity, dice(number, severity, index)) - image.astype(float)).mean())


@pytest.fixture(scope="module")
def errors(drawings: list[npt.NDArray[np.uint8]]) -> dict[str, list[float]]:
    """Mean absolute difference to the original at each severity."""
    found = {}
    for number, name in enumerate(CORRUPTIONS):
        found[name] = [
            float(np.mean([difference(name, severity, number, index, image) for index, image in enumerate(drawings)]))
            for severity in SEVERITIES
        ]
    return found


def test_the_fifteen_are_there_in_their_groups() -> None:
    grouped: dict[str, list[str]] = {}
    for name, corruption in CORRUPTIONS.items():
        grouped.setdefault(corruption.group, []).append(name)
        assert len(corruption.levels) == 5
    assert grouped == GROUPS


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - UNORDERED))
def test_every_severity_is_stronger_than_the_one_before(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name][0] > 1
    assert all(np.diff(errors[name]) > 0), errors[name]


@pytest.mark.parametrize("name", ["frost", "fog"])
def test_frost_and_fog_are_ordered_but_for_the_fourth(name: str, errors: dict[str, list[float]]) -> None:
    first, second, third, fourth, fifth = errors[name]
    assert first < second < third < fifth
    # The published numbers of the fourth add no ice and no fog: it is within some per cent of the third.
    assert fourth == pytest.approx(third, rel=0.05)


def test_glass_and_snow_are_stronger_at_the_end(errors: dict[str, list[float]]) -> None:
    first, second, third, fourth, fifth = errors["glass_blur"]
    assert max(first, second) < min(third, fourth) < fifth
    first, second, third, fourth, fifth = errors["snow"]
    assert first < min(second, third) < fourth < fifth


def test_the_elastic_transform_tilts_first_and_ripples_then(errors: dict[str, list[float]]) -> None:
    first, second, third, fourth, fifth = errors["elastic_transform"]
    assert fifth < first < second
    assert third < fifth
    assert fourth == pytest.approx((third + fifth) / 2, rel=0.2)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(16, 16), (48, 31), (33, 70)])
def test_any_shape_keeps_its_shape_and_the_same_state_gives_the_same_pixels(name: str, shape: tuple[int, int]) -> None:
    pixels = colourful(*shape)
    before = pixels.copy()
    for severity in (1, 5):
        first = corrupt(pixels, name, severity, dice(3))
        assert first.shape == pixels.shape
        assert first.dtype == np.uint8
        assert (first == corrupt(pixels, name, severity, dice(3))).all()
    assert (pixels == before).all()


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow"])
def test_another_state_gives_other_pixels(name: str) -> None:
    pixels = colourful(48, 48)
    assert (corrupt(pixels, name, 5, dice(3)) != corrupt(pixels, name, 5, dice(4))).any()


@pytest.mark.parametrize(
    ("name", "severity", "pixels"),
    [
        ("rain", 1, flat(0, 16)),
        ("snow", 0, flat(0, 16)),
        ("snow", 6, flat(0, 16)),
        ("fog", 1, flat(0, 16).astype(np.float32)),
        ("fog", 1, flat(0, 16)[..., 0]),
        ("fog", 1, flat(0, 16)[..., :2]),
    ],
)
def test_bad_input_is_refused(name: str, severity: int, pixels: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(UserError):
        corrupt(pixels, name, severity, dice(0))


@pytest.mark.parametrize(("severity", "spread"), list(enumerate([0.08, 0.12, 0.18, 0.26, 0.38], start=1)))
def test_gaussian_noise_has_the_published_spread(severity: int, spread: float) -> None:
    found = corrupt(flat(128), "gaussian_noise", severity, dice(0)) / 255
    grey = 128 / 255
    # A third of the values lies beyond one standard deviation, clipped or not.
    assert np.mean(np.abs(found - grey) > spread) == pytest.approx(0.3173, abs=0.01)
    black = NormalDist(grey, spread).cdf(0.5 / 255)
    assert np.mean(found == 0) == pytest.approx(black, abs=0.004)
    if severity < 3:
        assert found.std() == pytest.approx(spread, rel=0.02)


@pytest.mark.parametrize(("severity", "photons"), list(enumerate([60, 25, 12, 5, 3], start=1)))
def test_shot_noise_counts_photons(severity: int, photons: int) -> None:
    grey = 77 / 255
    found = corrupt(flat(77), "shot_noise", severity, dice(0)) / 255
    chances = [math.exp(-grey * photons) * (grey * photons) ** n / math.factorial(n) for n in range(photons + 1)]
    for number in (0, 1, 2):  # at 3 of 3 it is white, and more are clipped there
        share = np.mean(np.abs(found * photons - number) < 0.5 * photons / 255 + 1e-9)
        assert share == pytest.approx(chances[number], abs=0.01)
    if photons >= 12:
        assert found.std() == pytest.approx(math.sqrt(grey / photons), rel=0.02)


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.03, 0.06, 0.09, 0.17, 0.27], start=1)))
def test_impulse_noise_hits_single_values(severity: int, share: float) -> None:
    found = corrupt(flat(100), "impulse_noise", severity, dice(0))
    assert set(np.unique(found)) == {0, 100, 255}
    assert np.mean(found == 0) == pytest.approx(share / 2, rel=0.06)
    assert np.mean(found == 255) == pytest.approx(share / 2, rel=0.06)
    hit = found != 100
    # Channels are hit each for itself.
    assert np.mean(hit.all(axis=2)) == pytest.approx(share**3, abs=0.002)


@pytest.mark.parametrize(("severity", "more"), list(enumerate([0.1, 0.2, 0.3, 0.4, 0.5], start=1)))
def test_brightness_raises_the_value_of_hsv(severity: int, more: float) -> None:
    pixels = colourful()
    pixels[0, :3] = [[0, 0, 0], [255, 255, 255], [7, 0, 0]]
    found = corrupt(pixels, "brightness", severity, dice(0))
    for row, column in np.ndindex(pixels.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[row, column] / 255))
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + more))) * 255
        assert np.abs(found[row, column] - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(("severity", "kept"), list(enumerate([0.4, 0.3, 0.2, 0.1, 0.05], start=1)))
def test_contrast_pulls_each_channel_to_its_mean(severity: int, kept: float) -> None:
    pixels = colourful()
    found = corrupt(pixels, "contrast", severity, dice(0))
    for channel in range(3):
        values = pixels[..., channel].astype(float)
        mean = math.fsum(values.ravel()) / values.size
        assert np.abs(found[..., channel] - (mean + kept * (values - mean))).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(("severity", "edge"), [(2, 2), (5, 4)])
def test_pixelate_shows_block_means(severity: int, edge: int) -> None:
    pixels = colourful(24, 16)
    found = corrupt(pixels, "pixelate", severity, dice(0))
    for top in range(0, 24, edge):
        for left in range(0, 16, edge):
            block = np.s_[top : top + edge, left : left + edge]
            assert np.abs(found[block] - pixels[block].mean(axis=(0, 1))).max() <= 1.0


@pytest.mark.parametrize(("severity", "cells"), list(enumerate([38, 32, 25, 19, 16], start=1)))
def test_pixelate_leaves_so_many_cells_of_64(severity: int, cells: int) -> None:
    found = corrupt(colourful(64, 64), "pixelate", severity, dice(0)).astype(int)
    assert (np.abs(np.diff(found, axis=0)).sum(axis=(1, 2)) > 0).sum() == cells - 1


@pytest.mark.parametrize(("severity", "quality"), list(enumerate([25, 18, 15, 10, 7], start=1)))
def test_jpeg_compression_is_pillows_of_that_quality(severity: int, quality: int) -> None:
    pixels = colourful(40, 24)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", quality=quality)
    assert (corrupt(pixels, "jpeg_compression", severity, dice(0)) == np.asarray(Image.open(stream))).all()
