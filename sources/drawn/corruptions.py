"""The 15 corruptions of ImageNet-C in five severities each: noise, blur, weather, digital.

Definitions and numbers are the published ones (Hendrycks and Dietterich, 2019), implemented anew. The published numbers
are for images 224 pixels wide, and these rules scale them to another width:

- A length in pixels (radius, spread, reach, flake) is multiplied by width / 224. What is shifted or blurred is then the
  same part of the picture. Kernels are continuous, so that fractions of a pixel count too.
- A strength of values, a ratio or a quality stays as it is (noise, zoom, contrast, `pixelate`, JPEG).

There are two differences. The published frost is a photograph, instead of which a pattern is drawn. And images are
rounded to 8 bits, not truncated, and not stored as JPEG.

By mean difference to the original, every severity is stronger than the one before, with five exceptions that follow
from the published numbers. `glass_blur`: the second is about the first, the fourth about the third. `snow`: the second
and the third are about the same. `frost` and `fog`: the fourth is about the third, because it has no more ice or fog.
`elastic_transform`: the first two tilt the whole picture, the other three ripple it, which is less.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from basics.errors import UserError
from sources.drawn import blurs, weather
from sources.drawn.blurs import Picture

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One kind of corruption."""

    group: str
    """noise, blur, weather or digital."""
    levels: tuple[tuple[Any, ...], ...]
    """Parameters of `apply` at each severity."""
    apply: Callable[..., Picture]
    """Called with the picture (H, W, 3) in [0, 1], a generator and the parameters of a severity. The values that it
    returns may lie outside [0, 1]."""


def _gaussian_noise(picture: Picture, rng: np.random.Generator, spread: float) -> Picture:
    return picture + rng.normal(0.0, spread, picture.shape)


def _shot_noise(picture: Picture, rng: np.random.Generator, photons: float) -> Picture:
    """Count photons, of which white sends `photons` on average."""
    return rng.poisson(picture * photons) / photons


def _impulse_noise(picture: Picture, rng: np.random.Generator, share: float) -> Picture:
    """Set this share of all values, each channel for itself, to 0 or 1."""
    hit = rng.random(picture.shape) < share
    return np.where(hit, rng.integers(0, 2, picture.shape), picture)


def _brightness(picture: Picture, _: np.random.Generator, more: float) -> Picture:
    """Raise the V of HSV. With hue and saturation kept, red, green and blue grow by one factor."""
    value = picture.max(axis=2, keepdims=True)
    raised = np.minimum(value + more, 1.0)
    return np.asarray(np.where(value > 0, picture * raised / np.maximum(value, 1e-9), raised), np.float64)


def _contrast(picture: Picture, _: np.random.Generator, share: float) -> Picture:
    """Leave this share of each value's distance from its channel's mean."""
    mean = picture.mean(axis=(0, 1), keepdims=True)
    return np.asarray((picture - mean) * share + mean, np.float64)


def _pixelate(picture: Picture, _: np.random.Generator, ratio: float) -> Picture:
    """Reduce the picture to this ratio by block means, and enlarge it by repetition."""
    height, width = picture.shape[:2]
    image = Image.fromarray(to_bytes(picture))
    small = image.resize((max(1, int(width * ratio)), max(1, int(height * ratio))), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST), np.float64) / 255


def _jpeg_compression(picture: Picture, _: np.random.Generator, quality: int) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(to_bytes(picture)).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        return np.asarray(image, np.float64) / 255


def _levels(*numbers: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple(number if isinstance(number, tuple) else (number,) for number in numbers)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(group="noise", apply=_gaussian_noise, levels=_levels(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption(group="noise", apply=_shot_noise, levels=_levels(60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(group="noise", apply=_impulse_noise, levels=_levels(0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": Corruption(
        group="blur",
        apply=blurs.defocus_blur,
        levels=_levels((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": Corruption(
        group="blur",
        apply=blurs.glass_blur,
        levels=_levels((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(
        group="blur",
        apply=blurs.motion_blur,
        levels=_levels((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": Corruption(
        group="blur",
        apply=blurs.zoom_blur,
        levels=_levels((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.33, 0.03)),
    ),
    "snow": Corruption(
        group="weather",
        apply=weather.snow,
        levels=_levels(
            (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": Corruption(
        group="weather",
        apply=weather.frost,
        levels=_levels((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": Corruption(
        group="weather",
        apply=weather.fog,
        levels=_levels((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
    ),
    "brightness": Corruption(group="weather", apply=_brightness, levels=_levels(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(group="digital", apply=_contrast, levels=_levels(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Corruption(
        group="digital",
        apply=blurs.elastic_transform,
        # amplitude and smoothness of the waves, reach of the corners: parts of 244, as published
        levels=_levels((2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": Corruption(group="digital", apply=_pixelate, levels=_levels(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": Corruption(group="digital", apply=_jpeg_compression, levels=_levels(25, 18, 15, 10, 7)),
}
"""Every corruption by its published name. A new one goes to the end: the position in this list is part of the seed."""


def to_bytes(picture: Picture) -> npt.NDArray[np.uint8]:
    """Return a picture in [0, 1] as bytes; what lies outside is clipped, and values are rounded to the nearest."""
    return (np.clip(picture, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def corrupt(pixels: npt.NDArray[np.uint8], name: str, severity: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Corrupt one image.

    Args:
        pixels: RGB image (H, W, 3).
        name: One of `CORRUPTIONS`.
        severity: 1 (weakest) to 5.
        rng: Generator of all random numbers. The same state gives the same pixels.

    Returns:
        The corrupted image, of the same shape.

    Raises:
        UserError: there is no such corruption or severity, or the array is no RGB image of 8 bits.
    """
    if name not in CORRUPTIONS:
        raise UserError(f"There is no corruption {name!r}; choose one of {', '.join(CORRUPTIONS)}.")
    if severity not in SEVERITIES:
        raise UserError(f"There is no severity {severity}; choose 1 to {SEVERITIES[-1]}.")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UserError(f"A corruption takes 8-bit images (H, W, 3), not {pixels.dtype} {pixels.shape}.")
    corruption = CORRUPTIONS[name]
    level = corruption.levels[severity - 1]
    return to_bytes(corruption.apply(pixels.astype(np.float64) / 255, rng, *level))
