import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ImageColor

from sources.drawn import drawing
from sources.drawn.drawing import SHAPES, SUPERSAMPLING, draw_layers, draw_mask
from sources.drawn.styles import PALETTES, TEXTURES, draw_sketch, draw_stylized, retexture

Array = npt.NDArray[np.float64]

SIZE = 64
GREY = np.array([0.299, 0.587, 0.114])


def dice(*seed: int) -> np.random.Generator:
    return np.random.default_rng(list(seed))


def sketch(shape: str, seed: int) -> Array:
    return np.asarray(draw_sketch(shape, SIZE, dice(seed)), np.float64)


def inside(mask: object) -> npt.NDArray[np.bool_]:
    """A mask as large as it was drawn, reduced to the picture's size."""
    cells = np.asarray(mask, np.float64).reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING)
    return np.asarray(cells.mean(axis=(1, 3)) > 127)


def outline(shape: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Positions of pixels with a neighbour on the other side."""
    edge = np.zeros_like(shape)
    edge[1:] |= shape[1:] != shape[:-1]
    edge[:, 1:] |= shape[:, 1:] != shape[:, :-1]
    return np.argwhere(edge)


def distances(positions: npt.NDArray[np.intp], targets: npt.NDArray[np.intp]) -> Array:
    """Distance from each position to the nearest target."""
    return np.array([min(math.dist(position, target) for target in targets) for position in positions])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sketch_is_dark_lines_on_light_paper(shape: str) -> None:
    for seed in range(6):
        pixels = sketch(shape, seed)
        assert pixels.shape == (SIZE, SIZE, 3)
        assert (pixels == pixels[..., :1]).all()  # no colours
        assert np.median(pixels) > 215
        assert pixels.min() < 110
        assert 0.01 < (pixels < 150).mean() < 0.2  # lines, no areas


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_pencil_follows_the_outline_all_round(shape: str) -> None:
    for seed in range(4):
        # The first thing that a sketch draws from its generator is where the shape lies.
        edge = outline(inside(draw_mask(SIZE * SUPERSAMPLING, shape, dice(seed))))
        dark = np.argwhere(sketch(shape, seed)[..., 0] < 170)
        assert np.quantile(distances(edge, dark), 0.95) < 3
        darkest = np.argwhere(sketch(shape, seed)[..., 0] < 120)
        assert np.quantile(distances(darkest, edge), 0.95) < 3


@pytest.mark.slow
def test_some_sketches_are_shaded_and_some_are_not() -> None:
    middles = []
    for seed in range(30):
        mask = draw_mask(SIZE * SUPERSAMPLING, "square", dice(seed))
        deep = np.asarray(mask.reduce(SUPERSAMPLING), np.float64) > 250
        for _ in range(4):
            deep = deep & np.roll(deep, 1, 0) & np.roll(deep, -1, 0) & np.roll(deep, 1, 1) & np.roll(deep, -1, 1)
        middles.append(sketch("square", seed)[..., 0][deep].std())
    shaded = np.array(middles) > 6
    assert 5 < shaded.sum() < 25


@pytest.mark.slow
def test_no_two_sketches_are_alike_and_one_generator_makes_one() -> None:
    seen = {sketch("star", seed).tobytes() for seed in range(20)}
    assert len(seen) == 20
    assert (sketch("star", 3) == sketch("star", 3)).all()


@pytest.mark.parametrize("name", TEXTURES)
def test_a_texture_is_a_pattern_between_two_colours(name: str) -> None:
    for seed in range(8):
        plane = TEXTURES[name](96, dice(seed))
        assert plane.shape == (96, 96)
        assert plane.min() >= 0
        assert plane.max() <= 1
        assert plane.std() > 0.1
        # A pattern, not a slope from one side to the other: quarters are alike.
        quarters = plane.reshape(2, 48, 2, 48).mean(axis=(1, 3))
        assert np.ptp(quarters) < 0.35
    assert (TEXTURES[name](96, dice(0)) != TEXTURES[name](96, dice(1))).any()


def all_colours(palettes: Iterable[Iterable[Iterable[str]]]) -> Array:
    return np.array([ImageColor.getrgb(name) for sides in palettes for side in sides for name in side], np.float64)


def test_the_colours_are_not_those_of_the_training_images() -> None:
    old, new = all_colours(drawing._PALETTES), all_colours(PALETTES)
    jitter = drawing._JITTER * 255 * math.sqrt(3)
    assert np.linalg.norm(old[:, None] - new[None], axis=-1).min() > max(30, jitter)


def test_every_dark_colour_is_darker_than_every_light_one() -> None:
    for dark, light in PALETTES:
        values = [[np.array(ImageColor.getrgb(name)) @ GREY for name in side] for side in (dark, light)]
        assert max(values[0]) + 60 < min(values[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shape_stays_where_the_validation_image_has_it(shape: str) -> None:
    for seed in range(6):
        image = np.asarray(draw_stylized(shape, SIZE, dice(seed), dice(9, seed)), np.float64)
        assert image.shape == (SIZE, SIZE, 3)
        truth = inside(draw_layers(shape, SIZE, dice(seed)).mask)
        light = image @ GREY > 135
        # Either the shape is the light part or the ground is.
        agreement = (light == truth).mean()
        assert max(agreement, 1 - agreement) > 0.97


@pytest.mark.slow
def test_style_is_drawn_apart_from_the_shape() -> None:
    images = [np.asarray(draw_stylized("heart", SIZE, dice(1), dice(9, k)), float) @ GREY > 135 for k in range(12)]
    assert all((image == images[0]).mean() > 0.95 or (image != images[0]).mean() > 0.95 for image in images)
    assert len({image.tobytes() for image in images}) > 1
    # Both shape and ground come in dark and in light.
    assert {bool((image == images[0]).mean() > 0.5) for image in images} == {True, False}


def test_shape_and_ground_have_different_textures(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def noted(name: str) -> Callable[[int, np.random.Generator], Array]:
        def texture(side: int, _: np.random.Generator) -> Array:
            used.append(name)
            return np.zeros((side, side))

        return texture

    for name in list(TEXTURES):
        monkeypatch.setitem(TEXTURES, name, noted(name))
    for seed in range(60):
        retexture(np.ones((4, 4)), dice(seed))
    pairs = list(zip(used[::2], used[1::2], strict=True))
    assert len(pairs) == 60
    assert all(shape != ground for shape, ground in pairs)
    assert set(used) == set(TEXTURES)


def test_no_part_of_a_stylized_image_is_plain() -> None:
    mask = np.zeros((96, 96))
    mask[:48] = 1
    for seed in range(20):
        pixels = np.asarray(retexture(mask, dice(seed)), np.float64)
        for half in (pixels[:48], pixels[48:]):
            assert half.reshape(-1, 3).std(axis=0).max() > 4
