"""The attack that knows the defence: what it climbs, and that it does move what the substitute says."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from abnn.adaptive import adaptive_attack, drift
from abnn.checkpoint import Checkpoint
from abnn.layer import Adaptation
from abnn.network import ABNN
from attacks.objectives import margin
from attacks.pixels import PixelConfig
from tests.support import seeded

CONFIG = PixelConfig(eps=8 / 255, steps=8, step_size=2 / 255, random_start=False)


def adaptation(seed: int, count: int) -> Adaptation:
    dice = torch.Generator().manual_seed(seed)
    shapes = (count, 1, 1, 1), (count, 1, 1, 1), (count, 4, 1, 1), (count, 4, 1, 1)
    return Adaptation._make(torch.randn(shape, dtype=torch.float64, generator=dice) for shape in shapes)


def test_drift_is_the_mean_of_squared_distances_by_squared_lengths() -> None:
    now, before = [adaptation(0, 3), adaptation(1, 3)], [adaptation(2, 3), adaptation(3, 3)]
    found = drift(now, before, 3)
    for sample in range(3):
        shares = []
        for layer in range(2):
            for part in range(4):
                moved, clean = (
                    now[layer][part][sample].flatten().tolist(),
                    before[layer][part][sample].flatten().tolist(),
                )
                above = math.fsum((a - b) ** 2 for a, b in zip(moved, clean, strict=True))
                shares.append(above / math.fsum(value**2 for value in clean))
        assert float(found[sample]) == pytest.approx(sum(shares) / 8)


def test_statistics_of_a_whole_batch_count_for_each_image() -> None:
    one = torch.ones(1, 1, 1, 1)
    clean = adaptation(0, 2)._replace(mean=one, deviation=one)
    shared = clean._replace(mean=2 * one, deviation=2 * one)
    assert drift([shared], [clean], 2).tolist() == pytest.approx([0.5, 0.5])


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4


@pytest.mark.slow
def test_weight_on_the_drift_moves_the_substitute_further(runs: dict[str, Checkpoint]) -> None:
    network = runs["abnn"].module
    assert isinstance(network, ABNN)
    image, label = images()
    config = replace(CONFIG, steps=30, random_start=True)
    with seeded(0), torch.no_grad():
        clean = network.adaptations(image)
        signs = (torch.rand_like(image) - 0.5).sign()
        noisy = (image + CONFIG.eps * signs).clamp(0, 1)
        attacked = [adaptive_attack(network, config, weight)(image, label) for weight in (0.0, 1e5)]
        noise, margin_alone, driven = (
            float(drift(network.adaptations(moved), clean, 6).mean()) for moved in (noisy, *attacked)
        )
    assert driven > margin_alone
    assert driven > 1.5 * noise


@pytest.mark.slow
@pytest.mark.parametrize("name", ["abnn", "none"])
def test_without_weight_it_is_pgd_on_the_margin(runs: dict[str, Checkpoint], name: str) -> None:
    network, (image, label) = runs[name].module, images()
    moved = image.clone()
    for _ in range(CONFIG.steps):
        leaf = moved.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(margin(network(leaf), label).sum(), leaf)
        moved = (moved + CONFIG.step_size * gradient.sign()).clamp(image - CONFIG.eps, image + CONFIG.eps).clamp(0, 1)
    with seeded(0):
        found = adaptive_attack(network, CONFIG, 0.0)(image, label)
    # In single precision a few signs of gradients near 0 may differ.
    assert float((found - moved).abs().gt(1e-6).double().mean()) < 0.01
