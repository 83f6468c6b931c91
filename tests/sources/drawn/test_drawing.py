"""Single pictures: shapes in the frame, colours apart from their ground."""

import numpy as np
import pytest

from sources.drawn import drawing
from sources.drawn.source import SHAPES


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_lie_wholly_inside_the_frame(shape: str) -> None:
    for seed in range(100):
        mask = drawing.draw_mask(96, shape, np.random.default_rng(seed))
        left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
        assert min(left, top) > 0
        assert max(right, bottom) < 96
        assert np.count_nonzero(np.asarray(mask)) > 0.03 * 96 * 96


def test_a_shape_stands_out_from_its_ground() -> None:
    weights = np.array([0.299, 0.587, 0.114])
    for seed in range(300):
        shape, ground = drawing._colours(np.random.default_rng(seed))
        contrast = (shape @ weights)[:, None] - (ground @ weights)[None]
        assert np.abs(contrast).min() > 20
