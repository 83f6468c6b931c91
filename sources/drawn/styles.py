"""Two styles that the drawn world's training images do not have: pencil sketches and new textures.

Both work on a mask of the shape: one float64 plane (side, side), 1 inside and 0 outside.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor
from scipy import ndimage
from scipy.spatial import KDTree

from sources.drawn.drawing import SUPERSAMPLING, draw_layers, draw_mask
from sources.drawn.weather import enlarge, plasma

Plane = npt.NDArray[np.float64]
Grid = tuple[Plane, Plane]

_STROKES = (2, 4)  # times that the pencil goes round: at least the first, fewer than the second
_WOBBLE = 0.012  # how far a stroke strays, as a part of the width
_HATCHING_CHANCE = 0.5


def _plane(mask: Image.Image) -> Plane:
    return np.asarray(mask, np.float64) / 255


def _waves(side: int, cells: int, rng: np.random.Generator) -> Plane:
    """Return a smooth random field of about -1 to 1."""
    return enlarge(rng.uniform(-1, 1, (cells, cells)), side, side)


def _stroke(mask: Plane, rng: np.random.Generator) -> Plane:
    """Return one unsteady pencil stroke round the shape: darkness, 0 to 1."""
    side = len(mask)
    drift = rng.uniform(-_WOBBLE, _WOBBLE, 2)[:, None, None] * side / 2
    shifts = np.stack([_waves(side, 6, rng) for _ in range(2)]) * _WOBBLE * side + drift
    moved = ndimage.map_coordinates(mask, np.indices(mask.shape) + shifts, order=1, mode="nearest")
    soft = ndimage.gaussian_filter(moved, side * rng.uniform(0.007, 0.011))
    # A blurred edge passes one half exactly at the outline: dark there, light to both sides.
    line = np.clip(1.5 * (1 - np.abs(2 * soft - 1)), 0, 1) ** 1.5
    pressure = 0.72 + 0.28 * _waves(side, 5, rng)
    return np.asarray(line * pressure, np.float64)


def _hatching(mask: Plane, rng: np.random.Generator) -> Plane:
    """Shade one flank of the shape with thin parallel lines."""
    x, _ = _grid(len(mask), rng)
    period = rng.uniform(0.035, 0.055)
    lines = np.clip(1 - np.abs(x / period % 1 - 0.5) * 6, 0, 1)
    rows, columns = np.indices(mask.shape) / len(mask)
    turn = rng.uniform(0, 2 * math.pi)
    across = rows * math.sin(turn) + columns * math.cos(turn)
    inside = across[mask > 0.5]
    flank = np.clip((across - np.median(inside)) / (np.ptp(inside) + 1e-9) * 4, 0, 1)
    return np.asarray(0.7 * lines * flank * mask * (0.75 + 0.25 * _waves(len(mask), 7, rng)), np.float64)


def draw_sketch(shape: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Draw a pencil sketch of a shape at a random position, size and angle: dark lines on light paper, no colours.

    Args:
        shape: One of the drawn world's shapes.
        size: Width and height in pixels.
        rng: Generator of all random numbers.

    Returns:
        A grey RGB image.
    """
    side = size * SUPERSAMPLING
    mask = _plane(draw_mask(side, shape, rng))
    dark = np.zeros_like(mask)
    for _ in range(int(rng.integers(*_STROKES))):
        dark = np.maximum(dark, _stroke(mask, rng))
    if rng.random() < _HATCHING_CHANCE:
        dark = np.maximum(dark, _hatching(mask, rng))
    grain = rng.uniform(0.8, 1.0, mask.shape)  # paper takes the pencil unevenly
    paper = rng.uniform(0.9, 1.0) - 0.02 * np.abs(_waves(side, 9, rng))
    grey = paper * (1 - rng.uniform(0.8, 0.95) * np.clip(dark, 0, 1) * grain)
    image = Image.fromarray((np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8))
    return image.reduce(SUPERSAMPLING).convert("RGB")


def _grid(side: int, rng: np.random.Generator) -> Grid:
    """Return a turned and shifted pair of coordinates, in image widths."""
    rows, columns = np.indices((side, side)) / side
    angle = rng.uniform(0, 2 * math.pi)
    shift = rng.uniform(0, 1, 2)
    across = columns * math.cos(angle) + rows * math.sin(angle) + shift[0]
    down = rows * math.cos(angle) - columns * math.sin(angle) + shift[1]
    return across, down


def _bricks(side: int, rng: np.random.Generator) -> Plane:
    """Draw bonded rows with joints."""
    x, y = _grid(side, rng)
    height, joint = rng.uniform(0.09, 0.14), 0.18
    row = np.floor(y / height)
    along = x / (2.2 * height) + 0.5 * (row % 2)
    return np.asarray((y / height % 1 > joint) & (along % 1 > joint / 2.2), np.float64)


def _wavy(side: int, rng: np.random.Generator) -> Plane:
    """Draw lines that swing."""
    x, y = _grid(side, rng)
    period, swing = rng.uniform(0.08, 0.13), rng.uniform(0.03, 0.05)
    return 0.5 + 0.5 * np.sin(2 * math.pi * (y + swing * np.sin(2 * math.pi * x / rng.uniform(0.2, 0.35))) / period)


def _crosshatch(side: int, rng: np.random.Generator) -> Plane:
    """Draw two sets of thin crossing lines."""
    x, y = _grid(side, rng)
    period = rng.uniform(0.06, 0.09)
    slant = x + rng.uniform(0.3, 0.8) * y
    return np.maximum(np.abs(x / period % 1 - 0.5) > 0.33, np.abs((y - 0.4 * slant) / period % 1 - 0.5) > 0.33) * 1.0


def _scales(side: int, rng: np.random.Generator) -> Plane:
    """Draw overlapping round scales, each darker towards its rim."""
    x, y = _grid(side, rng)
    pitch = rng.uniform(0.11, 0.16)
    blend = np.zeros((side, side))
    free = np.ones((side, side), bool)
    # Of the scales that may cover a point, the one furthest down is on top.
    row = np.floor(y / (0.5 * pitch))
    for back in (0, 1, 2):
        offset = 0.5 * ((row - back) % 2)
        across = (x / pitch + offset) % 1 - 0.5
        down = y / pitch - 0.5 * (row - back)
        distance = np.hypot(across, down) / 0.62
        hit = free & (distance < 1)
        blend[hit] = 1 - distance[hit] ** 3
        free &= ~hit
    return blend


def _marble(side: int, rng: np.random.Generator) -> Plane:
    """Draw veins: stripes that clouds have bent."""
    x, _ = _grid(side, rng)
    bend = plasma(side, 1.8, rng)
    veins = np.abs(np.sin(math.pi * (x * rng.uniform(3, 5) + rng.uniform(3, 5) * bend)))
    return np.asarray(veins**0.6, np.float64)


def _rings(side: int, rng: np.random.Generator) -> Plane:
    """Draw the year rings of wood."""
    x, y = _grid(side, rng)
    centre = rng.uniform(-0.3, 1.3, 2)
    radius = np.hypot(x - x.min() - centre[0], 0.5 * (y - y.min() - centre[1])) + 0.05 * plasma(side, 2.0, rng)
    return np.asarray((radius / rng.uniform(0.05, 0.08)) % 1, np.float64)


def _cells(side: int, rng: np.random.Generator) -> Plane:
    """Draw cracked ground: every point belongs to the nearest of many centres, with gaps between."""
    count = int(rng.integers(24, 48))
    points = rng.uniform(-0.1, 1.1, (count, 2))
    distances, _ = KDTree(points).query(np.moveaxis(np.indices((side, side)) / side, 0, -1), k=2)
    return np.asarray(np.clip((distances[..., 1] - distances[..., 0]) * 25, 0, 1), np.float64)


def _zigzag(side: int, rng: np.random.Generator) -> Plane:
    """Draw herringbone lines."""
    x, y = _grid(side, rng)
    period, width = rng.uniform(0.09, 0.13), rng.uniform(0.14, 0.22)
    return np.asarray((y + 0.5 * width * np.abs(2 * (x / width % 1) - 1)) / period % 1 < 0.5, np.float64)


TEXTURES: dict[str, Callable[[int, np.random.Generator], Plane]] = {
    "bricks": _bricks,
    "waves": _wavy,
    "crosshatch": _crosshatch,
    "scales": _scales,
    "marble": _marble,
    "rings": _rings,
    "cells": _cells,
    "zigzag": _zigzag,
}
"""Textures that the training images do not have: each returns a plane (side, side) in [0, 1]."""

PALETTES: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (("#0000ff", "#1a0090"), ("#00ff7f", "#d8ff00")),
    (("#b00000", "#d02800"), ("#00ffff", "#a8ff60")),
    (("#004a00", "#009030"), ("#ff66ff", "#ffaaff")),
    (("#8a00d8", "#3000ff"), ("#ff8c00", "#fff200")),
    (("#d00068", "#780078"), ("#39ff14", "#00e0b0")),
    (("#0040e8", "#0078a8"), ("#ff8878", "#ffff00")),
    (("#505000", "#806000"), ("#66b3ff", "#d090ff")),
    (("#e00000", "#98005a"), ("#40e0ff", "#b0ff40")),
)
"""Dark and light colours that go together, all far from those of the training images; used like those."""


def _paint(texture: str, side: int, colours: Plane, rng: np.random.Generator) -> Plane:
    """Return (side, side, 3) in 0..255: a texture between two colours."""
    blend = np.clip(TEXTURES[texture](side, rng), 0, 1)[..., None]
    return np.asarray(colours[0] * (1 - blend) + colours[1] * blend, np.float64)


def retexture(mask: Plane, rng: np.random.Generator) -> Image.Image:
    """Paint a shape and its ground in two of the new textures and one of the new palettes.

    Args:
        mask: (side, side), 1 inside the shape, 0 outside.
        rng: Generator of all random numbers.

    Returns:
        An RGB image as large as the mask.
    """
    side = len(mask)
    names = list(TEXTURES)
    first, second = rng.choice(len(names), 2, replace=False)
    sides = PALETTES[int(rng.integers(len(PALETTES)))]
    dark_shape = int(rng.integers(2))
    colours = [np.array([ImageColor.getrgb(name) for name in pair], np.float64) for pair in sides]
    shape = _paint(names[first], side, colours[dark_shape], rng)
    ground = _paint(names[second], side, colours[1 - dark_shape], rng)
    pixels = shape * mask[..., None] + ground * (1 - mask[..., None])
    return Image.fromarray((pixels + 0.5).astype(np.uint8))


def draw_stylized(shape: str, size: int, drawn: np.random.Generator, rng: np.random.Generator) -> Image.Image:
    """Draw a picture of the drawn world with its shape at its position, but in new textures and colours.

    Args:
        shape: One of the drawn world's shapes.
        size: Width and height in pixels.
        drawn: The generator that draws the picture itself.
        rng: Generator of textures and colours.

    Returns:
        An RGB image.
    """
    mask = _plane(draw_layers(shape, size, drawn).mask)
    return retexture(mask, rng).reduce(SUPERSAMPLING)
