"""Networks that are built to be given weights."""

import pytest
import torch
from torch import nn

from networks.checkpoints import load_into
from networks.classifiers import build_network
from networks.uninitialised import Uninitialised
from tests.support import WIDTH, seeded


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("resnet18", 1.0),
        ("resnet18", WIDTH),
        ("mobilenet_v3_small", 1.0),
        ("squeezenet1_1", WIDTH),
        ("regnet_y_400mf", 1.0),
    ],
)
def test_no_random_number_is_drawn_and_loaded_weights_are_all_there_is(name: str, width: float) -> None:
    with seeded(0):
        trained = build_network(name, 3, width).eval()
        before = torch.get_rng_state()
        with Uninitialised():
            loaded = build_network(name, 3, width).eval()
        assert torch.equal(torch.get_rng_state(), before)
    load_into(loaded, trained.state_dict(), name)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded(image), trained(image))


def test_constants_are_set() -> None:
    with Uninitialised():
        norm = nn.BatchNorm2d(5)
    assert norm.weight is not None
    assert bool((norm.weight == 1).all())
    assert bool((norm.bias == 0).all())


def test_numbers_within_bounds_are_found_at_once() -> None:
    """torch draws again and again until all of them are."""
    weight = torch.full((3, 3), 100.0)
    with Uninitialised():
        for low, high in ((-2.0, 2.0), (-0.001, 0.001)):
            assert bool((nn.init.trunc_normal_(weight, std=0.01, a=low, b=high) == 0).all())


def test_after_it_weights_are_drawn_as_ever() -> None:
    with seeded(3):
        expected = nn.Conv2d(2, 3, 3).weight
    with Uninitialised():
        nn.Conv2d(2, 3, 3)
    with seeded(3):
        assert torch.equal(nn.Conv2d(2, 3, 3).weight, expected)
