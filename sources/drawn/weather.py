"""Snow, frost and fog of ImageNet-C. Pictures are float64 (H, W, 3) in [0, 1]; lengths are as in `blurs`."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sources.drawn.blurs import Picture, convolve, length_scale, line_kernel

_GREY = np.array([0.299, 0.587, 0.114])
_ICE = np.array([0.82, 0.92, 1.0])
"""The colour of frost where it is thickest."""


def enlarge(grid: Picture, height: int, width: int) -> Picture:
    """Return a coarse plane (h, w) enlarged smoothly to (height, width); values may overshoot a little."""
    image = Image.fromarray(grid.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float64)


def plasma(side: int, decay: float, rng: np.random.Generator) -> Picture:
    """Return clouds (side, side) from 0 to 1: each octave is half as wide as the last, and `decay` times weaker."""
    clouds = np.zeros((side, side))
    for octave in range(1, max(2, math.ceil(math.log2(side))) + 1):
        cells = min(2**octave, side)
        clouds += enlarge(rng.uniform(-1, 1, (cells, cells)), side, side) / decay**octave
    low, high = clouds.min(), clouds.max()
    return np.asarray((clouds - low) / (high - low), np.float64)


def fog(picture: Picture, rng: np.random.Generator, density: float, decay: float) -> Picture:
    """Add clouds and scale back to the old maximum."""
    height, width = picture.shape[:2]
    brightest = picture.max()
    clouds = plasma(max(height, width), decay, rng)[:height, :width, None]
    return np.asarray((picture + density * clouds) * brightest / (brightest + density), np.float64)


def _grains(height: int, width: int, flake: float, rng: np.random.Generator) -> Picture:
    """Return normal noise whose grains are `flake` pixels wide, and at least one."""
    grain = max(1.0, flake)
    noise = rng.normal(size=(math.ceil(height / grain), math.ceil(width / grain)))
    return noise if grain == 1.0 else enlarge(noise, height, width)


def snow(  # noqa: PLR0913, PLR0917 (the published numbers of a level)
    picture: Picture,
    rng: np.random.Generator,
    mean: float,
    spread: float,
    flake: float,
    threshold: float,
    radius: float,
    fall: float,
    kept: float,
) -> Picture:
    """Let it snow: bright grains of noise, blurred downwards, over a picture that is paled.

    Args:
        picture: The picture.
        rng: Generator of the flakes and of their direction.
        mean: Mean of the noise; a higher one gives more flakes.
        spread: Standard deviation of the noise.
        flake: Width of a grain.
        threshold: Noise below it is no flake.
        radius: Half the length of a flake's trace.
        fall: Standard deviation of the trace.
        kept: Share of the picture that is not paled.
    """
    scale = length_scale(picture)
    noise = mean + spread * _grains(picture.shape[0], picture.shape[1], flake * scale, rng)
    flakes = np.clip(np.where(noise < threshold, 0.0, noise), 0.0, 1.0)
    traces = convolve(flakes, line_kernel(radius * scale, fall * scale, rng.uniform(45, 135)))[..., None]
    grey = (picture @ _GREY)[..., None]
    paled = kept * picture + (1 - kept) * np.maximum(picture, 1.5 * grey + 0.5)
    return np.asarray(paled + traces + traces[::-1, ::-1], np.float64)


def _needle(draw: ImageDraw.ImageDraw, start: tuple[float, float], angle: float, length: float, ink: int) -> None:
    """Draw one feather of ice: a stem with shorter needles at 60 degrees to both sides."""
    across, down = math.cos(angle), math.sin(angle)
    end = start[0] + length * across, start[1] + length * down
    draw.line([start, end], fill=ink, width=2)
    barbs = max(2, int(length / 5))
    for step in range(1, barbs):
        part = step / barbs
        foot = start[0] + part * length * across, start[1] + part * length * down
        barb = 0.45 * length * (1 - part)
        for side in (-math.pi / 3, math.pi / 3):
            tip = foot[0] + barb * math.cos(angle + side), foot[1] + barb * math.sin(angle + side)
            draw.line([foot, tip], fill=ink * 3 // 4, width=1)


def frost_pattern(height: int, width: int, rng: np.random.Generator) -> Picture:
    """Draw ice on a window (height, width, 3): feathers that grow in from the border over a thin, cloudy film."""
    side = 2 * max(height, width)
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    for _ in range(46):
        # A point on the border, moved inwards by a random distance that is mostly short.
        turn = rng.uniform(0, 2 * math.pi)
        reach = side * (0.72 - 0.5 * rng.random() ** 2)
        start = side / 2 + reach * math.cos(turn), side / 2 + reach * math.sin(turn)
        angle = turn + math.pi + rng.normal(0, 0.5)
        _needle(draw, start, angle, side * rng.uniform(0.15, 0.4), int(rng.integers(120, 256)))
    feathers = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), np.float64) / 255
    film = plasma(side, 1.6, rng)
    rows, columns = (np.arange(side) / side - 0.5)[:, None], (np.arange(side) / side - 0.5)[None, :]
    edge = np.clip(np.hypot(rows, columns) * 1.6, 0.0, 1.0)
    ice = np.clip(0.75 * feathers + (0.25 + 0.55 * edge) * film, 0.0, 1.0)
    small = ice.reshape(side // 2, 2, side // 2, 2).mean(axis=(1, 3))
    return np.asarray(small[:height, :width, None] * _ICE, np.float64)


def frost(picture: Picture, rng: np.random.Generator, kept: float, ice: float) -> Picture:
    """Add a share of a frost pattern to a share of the picture."""
    return kept * picture + ice * frost_pattern(picture.shape[0], picture.shape[1], rng)
