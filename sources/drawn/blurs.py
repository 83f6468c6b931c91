"""Corruptions that move and mix pixels: the blurs of ImageNet-C and its elastic transform.

Pictures are float64 (H, W, 3) in [0, 1]. Lengths are given as published, for a width of 224 pixels, and scaled here.
Beyond its border a picture is mirrored.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Picture = npt.NDArray[np.float64]
"""(H, W, 3) or (H, W), values in [0, 1]."""

PUBLISHED_WIDTH = 224
"""The width in pixels that the published lengths belong to."""
_ELASTIC_WIDTH = 244
"""The width by which the published elastic transform scales its lengths: 244, not 224."""
_TRUNCATE = 3.0
"""Standard deviations at which Gaussian kernels end."""


def length_scale(picture: Picture) -> float:
    """Return how long one published pixel is in this picture, in pixels: its shorter side over 224."""
    height, width = picture.shape[:2]
    return float(min(height, width)) / PUBLISHED_WIDTH


def convolve(picture: Picture, kernel: Picture) -> Picture:
    """Mix each pixel with its neighbours by a kernel (odd height and width; the centre is the pixel itself).

    Done through Fourier transforms, so that a wide kernel costs no more than a small one.
    """
    down, across = (side // 2 for side in kernel.shape)
    planes = np.pad(picture.reshape(*picture.shape[:2], -1), ((down, down), (across, across), (0, 0)), mode="symmetric")
    shape = planes.shape[0] + 2 * down, planes.shape[1] + 2 * across
    spectrum = np.fft.rfft2(planes, shape, axes=(0, 1)) * np.fft.rfft2(kernel, shape)[..., None]
    mixed = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    height, width = picture.shape[:2]
    return mixed[2 * down : 2 * down + height, 2 * across : 2 * across + width].reshape(picture.shape)


def disc_kernel(radius: float, softness: float) -> Picture:
    """Return what an unfocused lens makes of a point: an even disc, summing to 1.

    A pixel on the rim counts by how far the disc reaches over its centre, from half a pixel before it (not at all) to
    half a pixel beyond (wholly). So the disc grows evenly with its radius.

    Args:
        radius: Radius of the disc, in pixels.
        softness: Standard deviation of the Gaussian that smooths it, in pixels.
    """
    reach = math.ceil(radius + 0.5 + _TRUNCATE * softness)
    line = np.arange(-reach, reach + 1)
    distance = np.hypot(line[:, None], line[None, :])
    disc = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    return np.asarray(ndimage.gaussian_filter(disc, softness, truncate=_TRUNCATE) / disc.sum(), np.float64)


def defocus_blur(picture: Picture, _: np.random.Generator, radius: float, softness: float) -> Picture:
    """Blur as a lens out of focus does."""
    scale = length_scale(picture)
    return convolve(picture, disc_kernel(radius * scale, softness * scale))


def line_kernel(radius: float, spread: float, degrees: float) -> Picture:
    """Return the trace of a moving point, summing to 1: it starts at the centre and fades like half a Gaussian.

    Args:
        radius: Half the length of the trace, in pixels.
        spread: Standard deviation of the Gaussian, in pixels.
        degrees: Direction, from right towards down.
    """
    # Steps of a quarter pixel, each shared by the four pixels around it, make a line without jags.
    steps = np.arange(0.0, 2 * radius + 0.25, 0.25)
    weights = np.exp(-(steps**2) / (2 * spread**2))
    reach = math.ceil(2 * radius + 1) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    x, y = steps * math.cos(math.radians(degrees)) + reach, steps * math.sin(math.radians(degrees)) + reach
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for right, down in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.abs(1 - right - (x - left)) * np.abs(1 - down - (y - top))
        np.add.at(kernel, (top + down, left + right), weights * share)
    return np.asarray(kernel / kernel.sum(), np.float64)


def motion_blur(picture: Picture, rng: np.random.Generator, radius: float, spread: float) -> Picture:
    """Blur as a moving camera does, in a random direction within 45 degrees of level."""
    scale = length_scale(picture)
    return convolve(picture, line_kernel(radius * scale, spread * scale, rng.uniform(-45, 45)))


def _zoom_matrix(side: int, factor: float) -> Picture:
    """Return the (side, side) matrix that enlarges a line of pixels around its middle, interpolating linearly."""
    middle = (side - 1) / 2
    positions = middle + (np.arange(side) - middle) / factor
    low = np.minimum(np.floor(positions).astype(int), side - 2)
    matrix = np.zeros((side, side))
    rows = np.arange(side)
    matrix[rows, low] = 1 - (positions - low)
    matrix[rows, low + 1] += positions - low
    return matrix


def zoom_blur(picture: Picture, _: np.random.Generator, end: float, step: float) -> Picture:
    """Average the picture with enlargements of itself, from 1 in steps to before `end`."""
    height, width = picture.shape[:2]
    factors = 1 + step * np.arange(round((end - 1) / step))
    total = picture.copy()
    for factor in factors:
        rows, columns = _zoom_matrix(height, factor), _zoom_matrix(width, factor)
        stretched = (rows @ picture.reshape(height, -1)).reshape(picture.shape)
        total += columns @ stretched
    return total / (len(factors) + 1)


def _swap_order(height: int, width: int, reach: float, rounds: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return where each pixel comes from after every pixel was swapped with a random one nearby, row by row."""
    order = list(range(height * width))
    for _ in range(rounds):
        # A fraction of a pixel is kept on average: half a pixel is one pixel every other time.
        shifts = np.floor(rng.uniform(-reach, reach, (height, width, 2)) + rng.random((height, width, 2))).astype(int)
        rows = np.clip(np.arange(height)[:, None] + shifts[..., 0], 0, height - 1)
        columns = np.clip(np.arange(width)[None, :] + shifts[..., 1], 0, width - 1)
        for index, other in enumerate((rows * width + columns).ravel().tolist()):
            order[index], order[other] = order[other], order[index]
    return np.array(order, np.intp)


def glass_blur(picture: Picture, rng: np.random.Generator, spread: float, reach: float, rounds: int) -> Picture:
    """Blur, swap each pixel with one nearby, and blur again, as frosted glass does."""
    scale = length_scale(picture)
    height, width = picture.shape[:2]
    spreads = (spread * scale, spread * scale, 0)
    soft = np.asarray(ndimage.gaussian_filter(picture, spreads, truncate=_TRUNCATE), np.float64)
    order = _swap_order(height, width, reach * scale, rounds, rng)
    swapped = soft.reshape(-1, 3)[order].reshape(picture.shape)
    return np.asarray(ndimage.gaussian_filter(swapped, spreads, truncate=_TRUNCATE), np.float64)


def _random_affine(height: int, width: int, reach: float, rng: np.random.Generator) -> Picture:
    """Return the (2, 3) map from output to input positions (row, column, 1): three corners are shifted."""
    corner = min(height, width) // 3
    centre = np.array([height // 2, width // 2], np.float64)
    corners = centre + corner * np.array([(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)])
    shifted = corners + rng.uniform(-reach, reach, (3, 2))
    return np.asarray(np.linalg.solve(np.column_stack([shifted, np.ones(3)]), corners).T, np.float64)


def elastic_transform(
    picture: Picture, rng: np.random.Generator, amplitude: float, smoothness: float, reach: float
) -> Picture:
    """Warp a picture: tilt it by three shifted corners, then shift every pixel a little.

    Args:
        picture: The picture.
        rng: Generator of the shifts.
        amplitude: Factor on the smoothed noise that the shifts are, as a part of 244.
        smoothness: Standard deviation of the Gaussian that smooths the noise, as a part of 244.
        reach: How far a corner may go to each side, as a part of 244.
    """
    height, width = picture.shape[:2]
    scale = length_scale(picture)
    spread = smoothness * _ELASTIC_WIDTH * scale
    # Noise that is smoothed over n pixels loses a factor of n, so the amplitude needs the scale twice to keep shifts
    # the same part of the picture.
    factor = amplitude * _ELASTIC_WIDTH * scale**2
    matrix = _random_affine(height, width, reach * _ELASTIC_WIDTH * scale, rng)
    noise = rng.uniform(-1, 1, (2, height, width))
    shifts = factor * np.stack([ndimage.gaussian_filter(plane, spread, truncate=_TRUNCATE) for plane in noise])
    positions = np.indices((height, width)) + shifts
    sought = np.tensordot(matrix[:, :2], positions, axes=1) + matrix[:, 2, None, None]
    planes = [ndimage.map_coordinates(picture[..., c], sought, order=1, mode="reflect") for c in range(3)]
    return np.stack(planes, axis=-1)
