"""Blurs and the elastic transform against naive versions and the published lengths."""

import math

import numpy as np
import pytest

from sources.drawn import blurs
from tests.sources.drawn.pictures import Array, dice, smooth


def naive_convolution(picture: Array, kernel: Array) -> Array:
    """Every output pixel computed by itself; the border is mirrored with its last pixel repeated."""
    height, width = picture.shape[:2]
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2

    def mirrored(index: int, side: int) -> int:
        index %= 2 * side
        return index if index < side else 2 * side - 1 - index

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


@pytest.mark.slow
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
    positions = np.indices((side, side)).astype(float)
    widest = 0.0
    for seed in range(20):
        sought = looked_up(blurs.elastic_transform(smooth(side), dice(seed), 0.0, 0.1, reach), side)
        inner = np.s_[:, 30:66, 30:66]
        design = np.column_stack([positions[inner].reshape(2, -1).T, np.ones(36 * 36)])
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
