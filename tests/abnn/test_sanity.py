"""The checks pass an honest network and fail those that hide their gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abnn.checkpoint import Checkpoint
from abnn.named_attacks import Transfer
from abnn.sanity import check, loss_surface
from attacks.objectives import cross_entropy
from attacks.pixels import PixelConfig
from tests.support import seeded

CONFIG = PixelConfig(eps=0.05, steps=5, step_size=0.0125)


class Honest(nn.Module):
    """Bright on the left or bright on the right, smoothly."""

    def forward(self, image: Tensor) -> Tensor:
        side = 20 * (image[..., :4].mean((1, 2, 3)) - image[..., 4:].mean((1, 2, 3)))
        return torch.stack([side, -side], dim=1)


class Hiding(Honest):
    """The same predictions from rounded pixels: no gradient."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward((image * 16).round() / 16 + 0 * image)


class Dicing(Honest):
    """Noise at every look."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image + 0.01 * torch.randn_like(image))


def images() -> tuple[Tensor, Tensor]:
    with seeded(0):
        image = 0.5 + 0.06 * torch.randn(60, 3, 8, 8).clamp(-3, 3)
        image[:30, ..., :4] += 0.05
        image[30:, ..., 4:] += 0.05
    return image.clamp(0, 1), torch.tensor([0] * 30 + [1] * 30)


def failed(network: nn.Module) -> list[str]:
    with seeded(1):
        return [each.name for each in check(network, *images(), CONFIG, None) if not each.passed]


@pytest.mark.slow
def test_an_honest_network_passes() -> None:
    assert failed(Honest()) == []


@pytest.mark.slow
def test_a_network_that_only_guesses_fails() -> None:
    class Constant(Honest):
        def forward(self, image: Tensor) -> Tensor:
            return 0 * super().forward(image) + torch.tensor([1.0, 0.0])

    assert "better than guessing" in failed(Constant())


@pytest.mark.slow
def test_hidden_gradients_fail() -> None:
    names = failed(Hiding())
    assert "gradients exist" in names
    assert "free pixels reach 0%" in names


@pytest.mark.slow
def test_random_outputs_fail() -> None:
    assert "same images, same predictions" in failed(Dicing())


@pytest.mark.slow
def test_a_black_box_that_beats_the_white_box_fails(runs: dict[str, Checkpoint]) -> None:
    image, label = images()

    class Elsewhere(Transfer):
        def __call__(self, *args: Any) -> Tensor:
            flipped: Tensor = args[1].flip(-1)
            return flipped

    attack = Elsewhere(config=CONFIG, surrogate=runs["none"])
    with seeded(1):
        checks = {each.name: each for each in check(Hiding(), image, label, CONFIG, attack)}
    assert not checks["white box beats black box"].passed
    assert checks["white box beats black box"].numbers.endswith("from none 0.0%")


def test_the_surface_is_the_loss_at_its_positions() -> None:
    image, label = images()
    network = Honest()
    with seeded(0):
        surface = loss_surface(network, image[:3], label[:3], CONFIG)
    middle = len(surface.along_P) // 2
    assert surface.along_P[middle] == 0
    clean = cross_entropy(network(image[:3]), label[:3]).numpy()
    assert surface.loss_KPP[:, middle, middle] == pytest.approx(clean, rel=1e-5)
    # Along the attack the loss rises.
    assert bool((np.diff(surface.loss_KPP[:, middle, middle:], axis=1) > 0).all())
