"""ROA against loops over single images in float64; where its rectangle goes, and what it leaves alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.objectives import cross_entropy
from attacks.rectangles import RectangleConfig, attack_rectangles, find_places, inside_of
from basics.errors import UserError
from tests.support import seeded

SIDE = 13


@pytest.fixture
def network() -> nn.Module:
    with seeded(0):
        layers = nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * (SIDE - 2) ** 2, 5)
        return nn.Sequential(*layers).double().requires_grad_(False)


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


LABEL = torch.tensor([0, 3, 4])


def naive(network: nn.Module, image: Tensor, label: Tensor, config: RectangleConfig, side: int, stride: int) -> Tensor:
    """One image: every place by loops, then plain PGD inside the best."""

    def loss(moved: Tensor) -> Tensor:
        return F.cross_entropy(network(moved[None]), label[None])

    starts = [*range(0, SIDE - side, stride), SIDE - side]
    best, found = -1.0, (0, 0)
    for top in starts:
        for left in starts:
            grey = image.clone()
            grey[:, top : top + side, left : left + side] = config.colour
            if float(loss(grey)) > best:
                best, found = float(loss(grey)), (top, left)
    top, left = found
    moved = image.clone()
    moved[:, top : top + side, left : left + side] = config.colour
    for _ in range(config.steps):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(moved), moved)
        moved = moved.detach()
        window = moved[:, top : top + side, left : left + side]
        window += config.step_size * gradient[:, top : top + side, left : left + side].sign()
        window.clamp_(0, 1)
    return moved


@pytest.mark.parametrize(("stride", "colour"), [(1, 0.5), (4, 0.0)])
def test_an_attack_equals_the_plain_loop_over_images(network: nn.Module, stride: int, colour: float) -> None:
    config = RectangleConfig(area=0.15, steps=4, step_size=0.2, stride=stride, colour=colour)
    assert config.size_in(SIDE, SIDE) == (5, 5)
    found = attack_rectangles(lambda image: cross_entropy(network(image), LABEL), images(), config)
    for each, original, label in zip(found, images(), LABEL, strict=True):
        assert torch.allclose(each, naive(network, original, label, config, 5, stride), rtol=0, atol=1e-12)


@pytest.mark.parametrize("place", [(0, 0), (10, 10), (10, 3), (4, 10), (7, 5)])
@pytest.mark.parametrize("search", ["exhaustive", "gradient"])
def test_a_planted_best_place_is_found(place: tuple[int, int], search: str) -> None:
    """Also the last row and column, which a stride of 4 over 11 rows would step over."""
    top, left = place
    weight = torch.zeros(3, SIDE, SIDE, dtype=torch.float64)
    weight[:, top : top + 3, left : left + 3] = -1

    def loss_of(image: Tensor) -> Tensor:
        # Bright pixels there keep the loss down, so grey costs most where they are.
        return (image * weight).sum((1, 2, 3))

    white = torch.ones(2, 3, SIDE, SIDE, dtype=torch.float64)
    stride = 1 if place in {(7, 5), (10, 3), (4, 10)} else 4
    config = RectangleConfig(height=3, width=3, stride=stride, search=search)  # type: ignore[arg-type]
    assert find_places(loss_of, white, config).tolist() == [list(place)] * 2


def test_places_are_a_grid_with_the_last_row_and_column() -> None:
    config = RectangleConfig(height=3, width=4, stride=5)
    assert config.places(13, 12) == [(top, left) for top in (0, 5, 10) for left in (0, 5, 8)]
    # The image itself is one place.
    assert RectangleConfig(area=1).places(8, 8) == [(0, 0)]


def test_the_published_sizes() -> None:
    assert RectangleConfig().size_in(112, 112) == (35, 35)
    assert RectangleConfig().size_in(32, 32) == (10, 10)
    assert len(RectangleConfig().places(32, 32)) == 12**2


@pytest.mark.parametrize("search", ["exhaustive", "gradient", "random"])
def test_outside_the_rectangle_not_a_bit_changes(network: nn.Module, search: str) -> None:
    config = RectangleConfig(area=0.15, steps=3, step_size=0.7, search=search)  # type: ignore[arg-type]
    with seeded(0):
        found = attack_rectangles(lambda image: cross_entropy(network(image), LABEL), images(), config)
    changed = (found != images()).any(1)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    for each in changed:
        rows, columns = each.any(1).nonzero()[:, 0], each.any(0).nonzero()[:, 0]
        assert int(rows[-1] - rows[0]) < 5
        assert int(columns[-1] - columns[0]) < 5
        assert int(each.sum()) > 0


def test_random_places_are_all_places_alike() -> None:
    config = RectangleConfig(height=11, width=12, search="random")
    with seeded(0):
        places = find_places(lambda image: image.sum((1, 2, 3)), torch.zeros(6000, 3, SIDE, SIDE), config)
    counts = torch.bincount(places[:, 0] * 2 + places[:, 1], minlength=6)
    assert counts.tolist() == pytest.approx([1000] * 6, rel=0.15)


def test_frames_of_clips_have_random_places_of_their_own_and_searched_ones_in_common() -> None:
    clip = torch.rand(2, 3, 40, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def loss_of(image: Tensor) -> Tensor:
        return image.square().sum((1, 2, 3, 4))

    with seeded(0):
        moved = attack_rectangles(loss_of, clip, RectangleConfig(search="random", steps=1))
        corner = find_places(loss_of, clip, RectangleConfig(search="random"))
    assert corner.shape == (2, 40, 2)
    assert len({tuple(each) for each in corner[0].tolist()}) > 10
    assert moved.shape == clip.shape
    assert [int(count) for count in (moved != clip).any(1).flatten(2).sum(2).flatten()] == [16] * 80
    shared = find_places(loss_of, clip, RectangleConfig())
    assert shared.shape == (2, 2)
    inside = inside_of(shared, (4, 4), clip).expand(2, 1, 40, SIDE, SIDE)
    assert bool((inside[:, :, :1] == inside).all())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"area": 0}, "area is 0"),
        ({"area": 1.1}, "area is 1.1"),
        ({"height": 3}, "height and its width"),
        ({"height": 0, "width": 3}, "counted from 1"),
        ({"stride": 0}, "counted from 1"),
        ({"steps": -1}, "0 or more steps"),
        ({"search": "wild"}, "no search 'wild'"),
        ({"colour": 2}, "colour is 2"),
    ],
)
def test_settings_that_make_no_rectangle_are_refused(words: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        RectangleConfig(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (RectangleConfig(height=14, width=2), "14x2 is larger than an image of 13x13"),
        (RectangleConfig(area=0.001), "less than one"),
    ],
)
def test_rectangles_that_do_not_fit_are_refused(config: RectangleConfig, said: str) -> None:
    with pytest.raises(UserError, match=said):
        attack_rectangles(lambda image: image.sum((1, 2, 3)), images(), config)
