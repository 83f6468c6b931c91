"""Fast AutoAugment's operations against plain arithmetic, and its published list."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import seeded
from training.augment import FastAutoAugment, apply_operation, fast_autoaugment_imagenet, policy

SIDE = 40


@pytest.fixture
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def array(image: Image.Image) -> "np.ndarray[Any, np.dtype[np.int_]]":
    return np.asarray(image).astype(int)


def test_the_published_list_is_whole() -> None:
    policies = fast_autoaugment_imagenet()
    assert len(policies) == 498
    assert {len(each) for each in policies} == {2}
    assert policies[0][0] == ("ShearY", 0.14143816458479197, 0.513124791615952)
    for each in policies:
        for name, probability, level in each:
            assert 0 <= probability <= 1
            assert 0 <= level <= 1
            apply_operation(Image.new("RGB", (8, 8), (9, 99, 199)), name, level)


def test_point_operations_are_their_formulas(image: Image.Image) -> None:
    before = array(image)
    threshold = 0.3 * 256
    expected = np.where(before < threshold, before, 255 - before)
    assert (array(apply_operation(image, "Solarize", 0.3)) == expected).all()
    assert (array(apply_operation(image, "Invert", 0.3)) == 255 - before).all()
    kept = 8 - int(4 + 0.6 * 4)
    assert (array(apply_operation(image, "Posterize", 0.6)) == before >> kept << kept).all()
    factor = 0.1 + 0.75 * 1.8
    assert np.abs(array(apply_operation(image, "Brightness", 0.75)) - np.clip(before * factor, 0, 255)).max() <= 1


def test_geometry_moves_pixels_by_shares_of_the_side(image: Image.Image) -> None:
    before = array(image)
    # Level 7/9 is a quarter of the side, to either side.
    moved = round(0.25 * SIDE)
    seen = set()
    for seed in range(12):
        with seeded(seed):
            after = array(apply_operation(image, "TranslateX", 7 / 9))
        left = (after[:, : SIDE - moved] == before[:, moved:]).mean() > 0.99 and not after[:, SIDE - moved :].any()
        right = (after[:, moved:] == before[:, : SIDE - moved]).mean() > 0.99 and not after[:, :moved].any()
        assert left or right
        seen.add(bool(left))
    assert seen == {True, False}, "it never turns around"


def test_a_cut_out_has_the_published_grey_and_at_most_its_side(image: Image.Image) -> None:
    before = array(image)
    side = math.ceil(0.2 * SIDE) + 1
    for seed in range(8):
        with seeded(seed):
            after = array(apply_operation(image, "Cutout", 1.0))
        rows, columns = np.nonzero((after != before).any(2))
        assert (after[rows, columns] == (125, 123, 114)).all()
        assert 0 < np.ptp(rows) + 1 <= side
        assert 0 < np.ptp(columns) + 1 <= side


def test_a_sub_policy_is_drawn_and_its_parts_by_their_probability(image: Image.Image) -> None:
    vary = FastAutoAugment([(("Invert", 0.25, 0.0), ("Solarize", 0.0, 0.5))])
    before, count = array(image), 0
    with seeded(0):
        for _ in range(600):
            after = array(vary(image))
            assert (after == before).all() or (after == 255 - before).all()
            count += bool((after == 255 - before).all())
    # Four standard deviations of a binomial of 600 at a quarter.
    assert abs(count / 600 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 600)


@pytest.mark.parametrize("name", ["autoaugment", "randaugment", "augmix", "fast-autoaugment"])
def test_policies_follow_torchs_generator_and_keep_the_size(image: Image.Image, name: str) -> None:
    vary = policy(name).vary
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append([array(vary(image)) for _ in range(6)])
    assert all((one == other).all() for one, other in zip(*results, strict=True))
    assert all(each.shape == (SIDE, SIDE, 3) for each in results[0])
