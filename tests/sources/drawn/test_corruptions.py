import colorsys
import io
import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from basics.errors import UserError
from sources.drawn import blurs, weather
from sources.drawn.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from sources.drawn.source import DrawnSource

Array = npt.NDArray[np.float64]

UNORDERED = {"glass_blur", "snow", "frost", "fog", "elastic_transform"}
GROUPS = {
    "noise": ["gaussian_noise", "shot_noise", "impulse_noise"],
    "blur": ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"],
    "weather": ["snow", "frost", "fog", "brightness"],
    "digital": ["contrast", "elastic_transform", "pixelate", "jpeg_compression"],
}


def dice(*seed: int) -> np.random.Generator:
    return np.random.default_rng(list(seed))


def flat(value: int, side: int = 200) -> npt.NDArray[np.uint8]:
    return np.full((side, side, 3), value, np.uint8)


def colourful(height: int = 12, width: int = 10) -> npt.NDArray[np.uint8]:
    return dice(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(side: int) -> Array:
    """A picture that every channel of tells the place: row, column, their sum."""
    rows, columns = np.indices((side, side)) / (2 * side)
    return np.stack([rows, columns, rows + columns], axis=-1)


@pytest.fixture(scope="module")
def drawings() -> list[npt.NDArray[np.uint8]]:
    source = DrawnSource(size=48)
    return [np.asarray(Image.open(io.BytesIO(source.read(record)))) for record in source.records[::8]]


def difference(name: str, severity: int, number: int, place: int, image: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(corrupt(image, name, severity, dice(number, severity, place)) - image.astype(float)).mean())


@pytest.fixture(scope="module")
def errors(drawings: list[npt.NDArray[np.uint8]]) -> dict[str, list[float]]:
    """Mean absolute difference to the original at each severity."""
    found = {}
    for number, name in enumerate(CORRUPTIONS):
        found[name] = [
            float(np.mean([difference(name, severity, number, place, image) for place, image in enumerate(drawings)]))
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


def naive_convolution(picture: Array, kernel: Array) -> Array:
    """Every output pixel spelt out; the border is mirrored with its last pixel repeated."""
    height, width = picture.shape[:2]
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2

    def mirrored(place: int, side: int) -> int:
        place %= 2 * side
        return place if place < side else 2 * side - 1 - place

    out = np.zeros_like(picture)
    for row, column in np.ndindex(height, width):
        for k, j in np.ndindex(*kernel.shape):
            source = mirrored(row - (k - down), height), mirrored(column - (j - across), width)
            out[row, column] += kernel[k, j] * picture[source]
    return out


@pytest.mark.parametrize("shape", [(3, 5), (1, 7), (9, 3)])
def test_convolution_is_the_naive_one(shape: tuple[int, int]) -> None:
    picture, kernel = dice(2).random((7, 6, 3)), dice(3).random(shape)
    assert np.abs(blurs.convolve(picture, kernel) - naive_convolution(picture, kernel)).max() < 1e-12
    assert np.abs(blurs.convolve(picture[..., 0], kernel) - naive_convolution(picture[..., 0], kernel)).max() < 1e-12


@pytest.mark.parametrize("radius", [0.9, 2.3, 3.0, 10.0])
def test_a_defocused_point_is_an_even_disc(radius: float) -> None:
    kernel = blurs.disc_kernel(radius, 0.0)
    middle = len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    area = 0.0
    for row, column in np.ndindex(*kernel.shape):
        distance = math.sqrt((row - middle) ** 2 + (column - middle) ** 2)
        inside = 1.0 if distance <= radius - 0.5 else 0.0 if distance >= radius + 0.5 else radius + 0.5 - distance
        area += inside
        assert kernel[row, column] / kernel[middle, middle] == pytest.approx(inside)
    if radius > 2:
        assert area == pytest.approx(math.pi * radius**2, rel=0.05)


def test_a_soft_disc_keeps_its_sum_and_is_wider() -> None:
    hard, soft = blurs.disc_kernel(6, 0.0), blurs.disc_kernel(6, 1.5)

    def variance(kernel: Array) -> float:
        line = np.arange(len(kernel)) - len(kernel) // 2
        return float((kernel.sum(axis=0) * line**2).sum())

    assert soft.sum() == pytest.approx(1)
    assert variance(soft) == pytest.approx(variance(hard) + 1.5**2, rel=0.03)


@pytest.mark.parametrize("degrees", [-45.0, 0.0, 30.0, 90.0])
def test_a_moving_point_leaves_half_a_gaussian_in_one_direction(degrees: float) -> None:
    radius, spread = 10.0, 4.0
    kernel = blurs.line_kernel(radius, spread, degrees)
    assert kernel.sum() == pytest.approx(1)
    line = np.arange(len(kernel)).astype(np.float64) - len(kernel) // 2
    rows, columns = line[:, None] + 0 * kernel, line[None, :] + 0 * kernel
    along = columns * math.cos(math.radians(degrees)) + rows * math.sin(math.radians(degrees))
    aside = rows * math.cos(math.radians(degrees)) - columns * math.sin(math.radians(degrees))
    assert np.abs(aside[kernel > 1e-9]).max() < 1.5
    assert along[kernel > 1e-9].min() > -1.5
    assert (kernel * aside).sum() == pytest.approx(0, abs=0.02)
    # The mean of a half Gaussian, cut off at five standard deviations.
    assert (kernel * along).sum() == pytest.approx(spread * math.sqrt(2 / math.pi), rel=0.05)


def test_lengths_grow_with_the_picture() -> None:
    def width_of(side: int) -> float:
        picture = np.zeros((side, side, 3))
        picture[side // 2, side // 2] = 1
        seen = blurs.defocus_blur(picture, dice(0), 10, 0.5)[..., 0]
        line = np.arange(side) - side // 2
        return math.sqrt((seen.sum(axis=0) * line**2).sum())

    assert width_of(224) == pytest.approx(10 / 2, rel=0.03)  # a disc's standard deviation along a line: radius / 2
    assert width_of(448) == pytest.approx(2 * width_of(224), rel=0.02)


@pytest.mark.parametrize("side", [56, 224, 448])
def test_motion_is_the_same_part_of_a_picture_of_any_size(side: int) -> None:
    picture = np.zeros((side, side, 3))
    picture[side // 2, side // 2] = 1
    angles = []
    for seed in range(12):
        seen = blurs.motion_blur(picture, dice(seed), 15, 5)[..., 0]
        assert seen.sum() == pytest.approx(1)
        down, across = (np.indices(seen.shape) * seen).sum(axis=(1, 2)) - side // 2
        assert math.hypot(down, across) == pytest.approx(5 * math.sqrt(2 / math.pi) * side / 224, rel=0.1)
        angles.append(math.degrees(math.atan2(down, across)))
    assert -45.5 < min(angles) < -20 < 20 < max(angles) < 45.5


@pytest.mark.parametrize("side", [56, 448])
def test_traces_of_snow_are_the_same_part_of_a_picture_of_any_size(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def note(radius: float, spread: float, degrees: float) -> Array:
        asked.extend([radius, spread])
        return line_kernel(radius, spread, degrees)

    line_kernel = blurs.line_kernel
    monkeypatch.setattr(weather, "line_kernel", note)
    weather.snow(np.zeros((side, side, 3)), dice(0), 0.1, 0.3, 3.0, 0.5, 10, 4, 0.8)
    assert asked == pytest.approx([10 * side / 224, 4 * side / 224])


def test_zoom_blur_averages_enlargements() -> None:
    picture = dice(5).random((9, 8, 3))

    def enlarged(factor: float) -> Array:
        out = np.zeros((9, 8, 3))
        for row, column in np.ndindex(9, 8):
            y, x = 4 + (row - 4) / factor, 3.5 + (column - 3.5) / factor
            top, left = min(math.floor(y), 7), min(math.floor(x), 6)
            for k, j in np.ndindex(2, 2):
                weight = (1 - abs(y - top - k)) * (1 - abs(x - left - j))
                out[row, column] += weight * picture[top + k, left + j]
        return out

    factors = [1.0, 1.03, 1.06, 1.09]
    expected = (picture + sum(enlarged(factor) for factor in factors)) / 5
    assert np.abs(blurs.zoom_blur(picture, dice(0), 1.12, 0.03) - expected).max() < 1e-12


def test_glass_without_blur_only_moves_pixels() -> None:
    picture = smooth(56)
    found = blurs.glass_blur(picture, dice(0), 1e-9, 2.0, 1)
    assert sorted(map(tuple, found.reshape(-1, 3))) == sorted(map(tuple, picture.reshape(-1, 3)))
    moved = np.abs(found - picture)[..., :2] * 2 * 56
    # A reach of 2 at 224 is half a pixel at 56: two thirds of the pixels or so move, and few of them far.
    assert 0.3 < (moved.max(axis=2) > 0.5).mean() < 0.95
    assert np.median(moved.max(axis=2)) <= 1.01
    assert (np.linalg.norm(found - picture, axis=2) > 0).any(axis=0).all()


def test_a_wider_reach_moves_pixels_further() -> None:
    picture = smooth(56)
    way = [np.abs(blurs.glass_blur(picture, dice(0), 1e-9, reach, 1) - picture).mean() for reach in (1, 2, 4, 8)]
    assert all(np.diff(way) > 0)
    often = [np.abs(blurs.glass_blur(picture, dice(0), 1e-9, 4, rounds) - picture).mean() for rounds in (1, 2, 3)]
    assert all(np.diff(often) > 0)


def looked_up(found: Array, side: int) -> Array:
    """Where each pixel of a warped `smooth` picture comes from, as (row, column)."""
    return np.moveaxis(found[..., :2], -1, 0) * 2 * side


def test_an_elastic_transform_of_nothing_changes_nothing() -> None:
    picture = dice(6).random((20, 24, 3))
    assert np.abs(blurs.elastic_transform(picture, dice(0), 0.0, 0.1, 0.0) - picture).max() < 1e-9


def test_the_tilt_shifts_three_corners_at_most_so_far() -> None:
    side, reach = 96, 0.05
    places = np.indices((side, side)).astype(float)
    widest = 0.0
    for seed in range(20):
        sought = looked_up(blurs.elastic_transform(smooth(side), dice(seed), 0.0, 0.1, reach), side)
        inner = np.s_[:, 30:66, 30:66]
        design = np.column_stack([places[inner].reshape(2, -1).T, np.ones(36 * 36)])
        solution, residuals, _, _ = np.linalg.lstsq(design, sought[inner].reshape(2, -1).T, rcond=None)
        assert residuals.max() < 1e-12  # a tilt maps lines to lines
        centre, corner = side // 2, side // 3
        for down, across in ((1, 1), (-1, 1), (-1, -1)):
            old = np.array([centre + down * corner, centre + across * corner])
            shifted = np.linalg.solve(solution[:2].T, old - solution[2])
            assert np.abs(shifted - old).max() <= reach * 244 * side / 224 + 1e-6
            widest = max(widest, np.abs(shifted - old).max())
    assert widest > 0.8 * reach * 244 * side / 224


@pytest.mark.parametrize("side", [112, 224])
def test_ripples_are_the_same_part_of_a_picture_of_any_size(side: int) -> None:
    # White noise of spread 1 / sqrt(3), smoothed by a Gaussian of s pixels, is left with one 2 sqrt(pi) s times less.
    sought = looked_up(blurs.elastic_transform(smooth(side), dice(0), 0.2, 0.015, 0.0), side)
    shifts = (sought - np.indices((side, side)))[:, 20:-20, 20:-20]
    published = 0.2 * 244 / math.sqrt(3) / (2 * math.sqrt(math.pi) * 0.015 * 244)
    assert shifts.std() / side == pytest.approx(published / 224, rel=0.1)


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
