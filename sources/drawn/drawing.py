"""Draws one picture of the drawn world: outline, palette, textures and shadow, all from one generator."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter

Points = list[tuple[float, float]]
Polygons = list[tuple[Points, int]]
"""Polygons in a unit circle around the origin (y points down), each with its ink: 1 adds, 0 cuts out."""
Plane = npt.NDArray[np.float32]

SUPERSAMPLING = 3
"""Factor by which a picture is drawn larger, before it is reduced."""
_MAX_ANGLE = 30.0  # degrees to either side
_RADIUS = (0.28, 0.42)  # of the unit circle, as a part of the image's width
_MARGIN = 0.03  # that stays free at the frame, as a part of the image's width
_JITTER = 0.04  # of each colour value
_OUTLINE_CHANCE = 0.3
_SHADOW_CHANCE = 0.5


def _round(radius: Callable[[float], float], count: int = 90) -> Points:
    """Return the curve with the polar equation `radius`."""
    angles = [2 * math.pi * step / count for step in range(count)]
    return [(radius(angle) * math.sin(angle), -radius(angle) * math.cos(angle)) for angle in angles]


def _disc(radius: float, x: float = 0.0) -> Points:
    return [(x + across, down) for across, down in _round(lambda _: radius)]


def _mirrored(right: Points) -> Points:
    """Close a right half, listed from top to bottom, with its mirror image."""
    return right + [(-x, y) for x, y in reversed(right)]


def _heart() -> Points:
    points = []
    for step in range(90):
        t = 2 * math.pi * step / 90
        across = 16 * math.sin(t) ** 3
        down = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
        points.append((across / 17, (down - 2.5) / 17))
    return points


_BOLT: Points = [(0.34, -0.94), (-0.56, 0.16), (-0.08, 0.16), (-0.34, 0.94), (0.56, -0.18), (0.08, -0.18)]
_CROSS: Points = [(0.29, -0.95), (0.29, -0.29), (0.95, -0.29), (0.95, 0.29), (0.29, 0.29), (0.29, 0.95)]

_OUTLINES: dict[str, Polygons] = {
    "arrow": [(_mirrored([(0.0, -0.98), (0.8, -0.14), (0.3, -0.14), (0.3, 0.9)]), 1)],
    "bolt": [(_BOLT, 1)],
    "circle": [(_disc(0.86), 1)],
    "crescent": [(_disc(0.96), 1), (_disc(0.78, x=0.42), 0)],
    "cross": [(_mirrored(_CROSS), 1)],
    "flower": [(_round(lambda angle: 0.42 + 0.56 * abs(math.cos(2.5 * angle))), 1)],
    "heart": [(_heart(), 1)],
    "hourglass": [(_mirrored([(0.68, -0.72), (0.1, 0.0), (0.68, 0.72)]), 1)],
    "ring": [(_disc(0.94), 1), (_disc(0.54), 0)],
    "square": [([(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)], 1)],
    "star": [(_round(lambda angle: 0.99 if round(angle * 5 / math.pi) % 2 == 0 else 0.42, count=10), 1)],
    "triangle": [([(0.0, -0.96), (0.84, 0.52), (-0.84, 0.52)], 1)],
}

SHAPES = tuple(sorted(_OUTLINES))
"""Class name at each label."""

_PALETTES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("#1d3557", "#26547c", "#6a040f"), ("#f1faee", "#a8dadc", "#ffd166")),
    (("#264653", "#1f6f65", "#7a2e1f"), ("#e9c46a", "#f4a261", "#fdf0d5")),
    (("#2b2d42", "#4a4e69", "#9b2226"), ("#edf2f4", "#c9ada7", "#ffb4a2")),
    (("#3d0066", "#5c0099", "#03071e"), ("#fdc500", "#ffd6e0", "#c8b6ff")),
    (("#132a13", "#31572c", "#4f3b1e"), ("#ecf39e", "#b5d99c", "#fefae0")),
    (("#001d3d", "#005f73", "#3c096c"), ("#94d2bd", "#caf0f8", "#ffe5d9")),
    (("#590d22", "#a4133c", "#240046"), ("#ffccd5", "#ff9eb5", "#fff0f3")),
    (("#212529", "#495057", "#343a40"), ("#f8f9fa", "#ced4da", "#ffe066")),
    (("#5f0f40", "#0f4c5c", "#7f2d0b"), ("#fbb13c", "#f7d1a1", "#d0f4de")),
    (("#283618", "#5f4b1b", "#1b4965"), ("#bee9e8", "#dda15e", "#f6f4d2")),
)
"""Dark and light colours that go together. One side fills the shape and the other the ground, either way:
a shape can always be seen, and no brightness belongs to a class."""


def _grid(side: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Return a rotated and shifted pair of coordinates, in image widths."""
    line = np.arange(side, dtype=np.float32) / np.float32(side)
    angle = rng.uniform(0.0, math.pi)
    shift = rng.uniform(0.0, 1.0, 2)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    x, y = line[None, :], line[:, None]
    return x * cos + y * sin + np.float32(shift[0]), y * cos - x * sin + np.float32(shift[1])


def _plain(side: int, _: np.random.Generator) -> Plane:
    return np.zeros((side, side), np.float32)


def _stripes(side: int, rng: np.random.Generator) -> Plane:
    x, _ = _grid(side, rng)
    period = rng.uniform(0.10, 0.22)
    return np.asarray(x % period < rng.uniform(0.35, 0.6) * period, np.float32)


def _checker(side: int, rng: np.random.Generator) -> Plane:
    x, y = _grid(side, rng)
    edge = rng.uniform(0.08, 0.16)
    return np.asarray((np.floor(x / edge) + np.floor(y / edge)) % 2, np.float32)


def _dots(side: int, rng: np.random.Generator) -> Plane:
    x, y = _grid(side, rng)
    pitch = rng.uniform(0.12, 0.2)
    radius = rng.uniform(0.25, 0.36)
    inside = (x / pitch % 1 - 0.5) ** 2 + (y / pitch % 1 - 0.5) ** 2 < radius**2
    return np.asarray(inside, np.float32)


def _gradient(side: int, rng: np.random.Generator) -> Plane:
    x, _ = _grid(side, rng)
    return np.asarray((x - x.min()) / (x.max() - x.min()), np.float32)


def _noise(side: int, rng: np.random.Generator) -> Plane:
    """Draw clouds: a coarse random field, enlarged smoothly."""
    cells = int(rng.integers(4, 13))
    field = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    return np.asarray(field.resize((side, side), Image.Resampling.BICUBIC), np.float32) / np.float32(255)


_TEXTURES = (_plain, _stripes, _checker, _dots, _gradient, _noise)


def _colours(rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Return two colours for the shape and two for the ground, each (2, 3) in 0..255."""
    sides = _PALETTES[int(rng.integers(len(_PALETTES)))]
    shape_side = int(rng.integers(2))
    picked = []
    for side in (sides[shape_side], sides[1 - shape_side]):
        pair = [ImageColor.getrgb(side[int(number)]) for number in rng.permutation(len(side))[:2]]
        jitter = rng.uniform(-_JITTER, _JITTER, (2, 3)) * 255
        picked.append(np.clip(np.array(pair) + jitter, 0, 255).astype(np.float32))
    return picked[0], picked[1]


def _solid(side: int, colour: Plane) -> Image.Image:
    return Image.new("RGB", (side, side), tuple(int(value) for value in colour))


def _fill(side: int, colours: Plane, rng: np.random.Generator) -> Image.Image:
    """Paint a whole square with one texture in two colours."""
    blend = _TEXTURES[int(rng.integers(len(_TEXTURES)))](side, rng)
    mask = Image.fromarray((blend * np.float32(255)).astype(np.uint8))
    return Image.composite(_solid(side, colours[1]), _solid(side, colours[0]), mask)


def draw_mask(side: int, shape: str, rng: np.random.Generator) -> Image.Image:
    """Draw the shape, white on black (L), at a random position, size and angle, wholly inside the frame."""
    radius = rng.uniform(*_RADIUS)
    x, y = rng.uniform(radius + _MARGIN, 1 - radius - _MARGIN, 2)
    angle = math.radians(rng.uniform(-_MAX_ANGLE, _MAX_ANGLE))
    cos, sin = math.cos(angle) * radius, math.sin(angle) * radius
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    for points, ink in _OUTLINES[shape]:
        placed = [((x + px * cos - py * sin) * side, (y + px * sin + py * cos) * side) for px, py in points]
        draw.polygon(placed, fill=255 * ink)
    return mask


def _shade(ground: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Draw a soft shadow of the shape on the ground."""
    shift = round(ground.width * rng.uniform(0.015, 0.03))
    shadow = ImageChops.offset(mask, shift, shift).filter(ImageFilter.BoxBlur(ground.width * 0.015))
    dark = ground.point([value * 11 // 20 for value in range(256)] * 3)
    return Image.composite(dark, ground, shadow)


def _outline(fill: Image.Image, mask: Image.Image, colour: Plane) -> Image.Image:
    """Frame the shape with a thin line in a shade of its own colour."""
    blurred = mask.filter(ImageFilter.BoxBlur(fill.width // 60))
    inside = blurred.point([255 * (value > 230) for value in range(256)])
    return Image.composite(fill, _solid(fill.width, colour * np.float32(0.7)), inside)


def outline_of(shape: str) -> Polygons:
    """Return the outline of a shape."""
    return _OUTLINES[shape]


class Layers(NamedTuple):
    """The parts of a picture, larger than it by `SUPERSAMPLING`."""

    ground: Image.Image
    """RGB, the whole square."""
    fill: Image.Image
    """RGB, the whole square; seen only inside the shape."""
    mask: Image.Image
    """L, 255 inside the shape and 0 outside."""


def draw_layers(shape: str, size: int, rng: np.random.Generator) -> Layers:
    """Draw the parts of a picture, `SUPERSAMPLING` times as wide and high as `size`."""
    side = size * SUPERSAMPLING
    shape_colours, ground_colours = _colours(rng)
    ground = _fill(side, ground_colours, rng)
    fill = _fill(side, shape_colours, rng)
    mask = draw_mask(side, shape, rng)
    if rng.random() < _SHADOW_CHANCE:
        ground = _shade(ground, mask, rng)
    if rng.random() < _OUTLINE_CHANCE:
        fill = _outline(fill, mask, shape_colours[0])
    return Layers(ground, fill, mask)


def draw_tiled(shape: str, tile: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Draw a shape on plain ground, filled with small copies of another shape, which are its texture.

    Args:
        shape: one of SHAPES.
        tile: one of SHAPES.
        size: width and height in pixels.
        rng: generator of all random numbers.

    Returns:
        An RGB image in the colours of the training images.
    """
    side = size * SUPERSAMPLING
    shape_colours, ground_colours = _colours(rng)
    mask = draw_mask(side, shape, rng)
    tiles = _tiles(side, tile, rng)
    fill = Image.composite(_solid(side, ground_colours[0]), _solid(side, shape_colours[0]), tiles)
    return Image.composite(fill, _solid(side, ground_colours[1]), mask).reduce(SUPERSAMPLING)


def _tiles(side: int, shape: str, rng: np.random.Generator) -> Image.Image:
    """Draw small copies of a shape, white on black (L), in rows and columns over the whole square."""
    pitch = side * rng.uniform(0.12, 0.16)
    shift = rng.uniform(0, pitch, 2)
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    for row, column in np.ndindex(math.ceil(side / pitch) + 1, math.ceil(side / pitch) + 1):
        x, y = column * pitch + shift[0] - pitch / 2, row * pitch + shift[1] - pitch / 2
        for points, ink in _OUTLINES[shape]:
            draw.polygon([(x + 0.44 * pitch * px, y + 0.44 * pitch * py) for px, py in points], fill=255 * ink)
    return mask


def draw_image(shape: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Draw one RGB picture of `shape`, `size` pixels wide and high.

    It is drawn larger and reduced, which smooths the edges.
    """
    layers = draw_layers(shape, size, rng)
    return Image.composite(layers.fill, layers.ground, layers.mask).reduce(SUPERSAMPLING)
