"""ROA against a plain loop over single images: its positions, and the pixels that it must not change."""

from collections import Counter
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.rectangles import RectangleConfig, RectangleThreat, Search, attack_rectangles, find_positions
from basics.errors import UserError
from tests.support import seeded

LABEL = torch.tensor([0, 3, 4])


@pytest.fixture
def network() -> nn.Module:
    with seeded(0):
        layers = nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
        return nn.Sequential(*layers).double().requires_grad_(False)


def images(height: int = 9, width: int = 11) -> Tensor:
    return torch.rand(3, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def losses(network: nn.Module, label: Tensor = LABEL) -> Callable[[Tensor], Tensor]:
    return lambda image: F.cross_entropy(network(image), label, reduction="none")


def grid_lines(length: int, side: int, stride: int) -> list[int]:
    found = []
    line = 0
    while line < length - side:
        found.append(line)
        line += stride
    return [*found, length - side]


def naive_positions(image: Tensor, config: RectangleConfig) -> list[tuple[int, int]]:
    assert config.height is not None
    assert config.width is not None
    assert config.stride is not None
    rows, columns = (
        grid_lines(length, side, config.stride)
        for length, side in zip(image.shape[-2:], (config.height, config.width), strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def naive_gradient(network: nn.Module, image: Tensor, truth: Tensor) -> Tensor:
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(leaf[None]), truth[None]), leaf)
    return gradient


def naive(network: nn.Module, image: Tensor, truth: Tensor, config: RectangleConfig) -> Tensor:
    """One image: try positions one by one, then PGD on the cut-out."""
    assert config.height is not None
    assert config.width is not None
    positions = naive_positions(image, config)
    if config.search == "gradient":
        square = naive_gradient(network, image, truth) ** 2
        energies = [
            float(square[:, row : row + config.height, column : column + config.width].sum())
            for row, column in positions
        ]
        best = sorted(range(len(positions)), key=lambda index: -energies[index])[: config.candidates]
        positions = [positions[index] for index in best]

    def plain(row: int, column: int) -> Tensor:
        painted = image.clone()
        painted[:, row : row + config.height, column : column + config.width] = config.colour  # type: ignore[operator]
        return painted

    found = [float(F.cross_entropy(network(plain(*position)[None]), truth[None])) for position in positions]
    row, column = positions[found.index(max(found))]
    inside = slice(None), slice(row, row + config.height), slice(column, column + config.width)
    moved = plain(row, column)
    for _ in range(config.steps):
        gradient = naive_gradient(network, moved, truth)
        moved[inside] = (moved[inside] + config.step_size * gradient[inside].sign()).clamp(0, 1)
    return moved


@pytest.mark.parametrize("search", ["exhaustive", "gradient"])
@pytest.mark.parametrize("stride", [1, 3])
def test_an_attack_equals_the_plain_loop_over_images(network: nn.Module, search: Search, stride: int) -> None:
    config = RectangleConfig(
        height=3, width=4, steps=4, step_size=0.2, stride=stride, search=search, candidates=3, colour=0.4
    )
    found = attack_rectangles(losses(network), images(), config)
    for each, original, truth in zip(found, images(), LABEL, strict=True):
        assert torch.allclose(each, naive(network, original, truth, config), rtol=0, atol=1e-12)


PLANTED = torch.tensor([[7, 7], [3, 6], [0, 0]])


def weights(shape: torch.Size) -> Tensor:
    """Every sample's loss falls with the brightness of one 3 x 3 square, another one in each sample."""
    weight = torch.full(shape, 1e-3, dtype=torch.float64)
    for sample, (row, column) in enumerate(PLANTED.tolist()):
        weight[sample, ..., row : row + 3, column : column + 3] = 1
    return weight


def darkness(image: Tensor) -> Tensor:
    return -(weights(image.shape) * image).flatten(1).sum(1)


@pytest.mark.parametrize("search", ["exhaustive", "gradient"])
@pytest.mark.parametrize("shape", [(3, 3, 10, 10), (3, 3, 2, 10, 10)], ids=["image", "video"])
def test_a_search_finds_the_planted_position(search: Search, shape: tuple[int, ...]) -> None:
    # Stride 3 reaches 0, 3, 6 and, as the last row and column, 7, which it does not divide.
    config = RectangleConfig(height=3, width=3, stride=3, search=search, candidates=1, colour=0, per_frame=False)
    assert torch.equal(find_positions(darkness, torch.ones(shape, dtype=torch.float64), config), PLANTED)


def test_an_exhaustive_search_of_videos_finds_one_position_for_all_frames() -> None:
    config = RectangleConfig(height=3, width=3, stride=3, colour=0)
    assert torch.equal(find_positions(darkness, torch.ones(3, 3, 2, 10, 10, dtype=torch.float64), config), PLANTED)


PLANTED_IN_FRAMES = torch.tensor([[[7, 7], [0, 3]], [[3, 6], [7, 0]], [[0, 0], [6, 6]]])


def frames_darkness(video: Tensor) -> Tensor:
    """As `darkness`, with another square in each frame."""
    weight = torch.full(video.shape, 1e-3, dtype=torch.float64)
    for sample, frames in enumerate(PLANTED_IN_FRAMES.tolist()):
        for frame, (row, column) in enumerate(frames):
            weight[sample, :, frame, row : row + 3, column : column + 3] = 1
    return -(weight * video).flatten(1).sum(1)


@pytest.mark.parametrize("candidates", [1, 4])
def test_a_gradient_search_by_frame_finds_each_frame_s_planted_position(candidates: int) -> None:
    config = RectangleConfig(height=3, width=3, stride=3, search="gradient", candidates=candidates, colour=0)
    found = find_positions(frames_darkness, torch.ones(3, 3, 2, 10, 10, dtype=torch.float64), config)
    assert torch.equal(found, PLANTED_IN_FRAMES)


def ranked_positions(square: Tensor, grid: list[tuple[int, int]], size: tuple[int, int]) -> list[tuple[int, int]]:
    def energy(at: tuple[int, int]) -> float:
        return float(square[:, at[0] : at[0] + size[0], at[1] : at[1] + size[1]].sum())

    return sorted(grid, key=energy, reverse=True)


def test_a_gradient_search_by_frame_tries_each_frame_s_candidates_in_turn() -> None:
    """Against a plain loop over one video, on a loss to which no frame contributes alone."""
    with seeded(0):
        layers = nn.Conv3d(3, 4, (2, 3, 3)), nn.Tanh(), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(32, 5)
        network = nn.Sequential(*layers).double().requires_grad_(False)
    video = torch.rand(3, 3, 4, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    config = RectangleConfig(height=3, width=2, stride=2, search="gradient", candidates=3, colour=0.3)
    tried: list[int] = []

    def loss_of(moved: Tensor) -> Tensor:
        tried.append(len(moved))
        return F.cross_entropy(network(moved), LABEL, reduction="none")

    found = find_positions(loss_of, video, config)
    assert len(tried) == 1 + 1 + 4 * (3 - 1)
    for clip, truth, position in zip(video, LABEL, found.tolist(), strict=True):
        square = naive_gradient(network, clip, truth) ** 2
        grid = [(row, column) for row in grid_lines(7, 3, 2) for column in grid_lines(8, 2, 2)]
        candidates = [ranked_positions(square[:, frame], grid, (3, 2))[:3] for frame in range(4)]

        def loss(places: list[tuple[int, int]], clip: Tensor = clip, truth: Tensor = truth) -> float:
            painted = clip.clone()
            for frame, (row, column) in enumerate(places):
                painted[:, frame, row : row + 3, column : column + 2] = 0.3
            return float(F.cross_entropy(network(painted[None]), truth[None]))

        places = [ranked[0] for ranked in candidates]
        for frame in range(4):
            places = max(([*places[:frame], at, *places[frame + 1 :]] for at in candidates[frame]), key=loss)
        assert [tuple(at) for at in position] == places


def test_gradients_too_small_to_be_squared_still_give_the_position() -> None:
    config = RectangleConfig(height=3, width=3, stride=3, search="gradient", candidates=1, colour=0)
    found = find_positions(lambda image: 1e-30 * darkness(image).float(), torch.ones(3, 3, 10, 10), config)
    assert torch.equal(found, PLANTED)


@pytest.mark.parametrize("search", ["exhaustive", "gradient"])
def test_of_equal_positions_the_first_is_taken(search: Search) -> None:
    config = RectangleConfig(height=3, width=3, search=search)
    found = find_positions(lambda image: 0 * image.flatten(1).sum(1), images(), config)
    assert torch.equal(found, torch.zeros(3, 2, dtype=torch.long))


def test_the_default_stride_is_a_quarter_of_the_rectangle() -> None:
    for side, passes in ((32, 144), (112, 121)):
        tried: list[Tensor] = []

        def loss_of(image: Tensor, tried: list[Tensor] = tried) -> Tensor:
            tried.append(image)
            return image.flatten(1).sum(1)

        find_positions(loss_of, torch.zeros(1, 3, side, side), RectangleConfig())
        assert len(tried) == passes


def test_random_positions_cover_all_valid_ones_evenly() -> None:
    config = RectangleConfig(height=3, width=2, search="random")
    with seeded(0):
        position_N2 = find_positions(darkness, torch.zeros(6000, 3, 5, 5), config)
    counts = Counter(map(tuple, position_N2.tolist()))
    assert sorted(counts) == [(row, column) for row in range(3) for column in range(4)]
    assert min(counts.values()) > 400
    assert max(counts.values()) < 600


def test_a_fixed_random_position_holds_for_all_frames_of_a_video() -> None:
    config = RectangleConfig(height=3, width=2, search="random", per_frame=False)
    with seeded(0):
        found = find_positions(darkness, torch.zeros(40, 3, 5, 9, 9), config)
    assert found.shape == (40, 2)
    assert len(set(map(tuple, found.tolist()))) > 10


def test_random_positions_in_videos_differ_from_frame_to_frame() -> None:
    config = RectangleConfig(height=3, width=2, search="random")
    with seeded(0):
        position_NT2 = find_positions(darkness, torch.zeros(4, 3, 50, 9, 9), config)
    assert position_NT2.shape == (4, 50, 2)
    assert all(len(set(map(tuple, sample))) > 10 for sample in position_NT2.tolist())


@pytest.mark.parametrize("search", ["exhaustive", "gradient", "random"])
@pytest.mark.parametrize("frames", [None, 4])
@pytest.mark.parametrize("per_frame", [True, False])
def test_nothing_outside_changes_and_everything_stays_an_image(
    search: Search, frames: int | None, per_frame: bool
) -> None:
    config = RectangleConfig(height=3, width=4, search=search, stride=2, candidates=3, per_frame=per_frame)
    shape = (3, 3, 10, 10) if frames is None else (3, 3, frames, 10, 10)
    clean = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    with seeded(3):
        position = find_positions(darkness, clean, config)
    with seeded(3):
        found = attack_rectangles(darkness, clean, config)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    # Five steps of 70/255 down from grey: all of it is black.
    expected = clean.clone()
    for sample in range(3):
        for frame in range(frames or 1):
            row, column = (position[sample, frame] if position.ndim == 3 else position[sample]).tolist()
            canvas = expected[sample] if frames is None else expected[sample, :, frame]
            canvas[:, row : row + 3, column : column + 4] = 0
    assert torch.equal(found, expected)


def test_steps_move_nothing_outside() -> None:
    image = images()
    threat = RectangleThreat(RectangleConfig(height=2, width=2, steps=1), image, torch.tensor([[0, 0], [1, 2], [7, 9]]))
    (moved,) = threat.step((image,), (torch.ones_like(image),))
    assert torch.equal((moved - image).abs() > 0, threat.inside.expand_as(image))


def test_no_steps_leave_the_rectangle_plain(network: nn.Module) -> None:
    found = attack_rectangles(losses(network), images(), RectangleConfig(height=2, width=2, steps=0, colour=0.25))
    assert ((found == 0.25).all(1).flatten(1).sum(1) == 4).all()


def test_sizes() -> None:
    assert RectangleConfig().size_in(112, 112) == (35, 35)
    assert RectangleConfig().size_in(32, 32) == (10, 10)
    assert RectangleConfig(area=1).size_in(7, 7) == (7, 7)
    assert RectangleConfig(area=0.07 / 7 * 9).size_in(10, 10) == (3, 3)
    assert RectangleConfig(height=3, width=5).size_in(3, 5) == (3, 5)


def test_a_rectangle_may_fill_the_image(network: nn.Module) -> None:
    config = RectangleConfig(height=9, width=11, steps=0)
    for search in get_args(Search):
        position = find_positions(losses(network), images(), RectangleConfig(height=9, width=11, search=search))
        assert not position.any()
    assert (attack_rectangles(losses(network), images(), config) == 0.5).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"area": 0}, "area is 0"), ({"area": 1.1}, "area is 1.1"), ({"area": float("nan")}, "area is nan"),
     ({"height": 3}, "go together"), ({"width": 3}, "go together"), ({"height": 0, "width": 3}, "0 x 3 pixels"),
     ({"steps": -1}, "rectangle steps is -1"), ({"step_size": 0}, "step size is 0"), ({"stride": 0}, "stride is 0"),
     ({"search": "luck"}, "no search 'luck'"), ({"candidates": 0}, "candidate positions is 0"),
     ({"colour": 1.5}, "colour is 1.5")],
)  # fmt: skip
def test_invalid_settings_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RectangleConfig(**changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [(RectangleConfig(height=10, width=2), (1, 3, 9, 9), "10 x 2 pixels is larger than the images, which are 9 x 9"),
     (RectangleConfig(area=0.5), (1, 3, 4, 40), "8 x 8 pixels is larger"),
     (RectangleConfig(area=0.001), (1, 3, 9, 9), "less than a pixel"),
     (RectangleConfig(), (3, 9, 9), r"not into \(3, 9, 9\)")],
)  # fmt: skip
@pytest.mark.parametrize("search", ["exhaustive", "gradient", "random"])
def test_images_that_do_not_fit_are_refused(
    config: RectangleConfig, shape: tuple[int, ...], message: str, search: Search
) -> None:
    given = RectangleConfig(area=config.area, height=config.height, width=config.width, search=search)
    with pytest.raises(UserError, match=message):
        attack_rectangles(darkness, torch.zeros(shape), given)
