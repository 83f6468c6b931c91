"""Attacks by name: their settings, and that each stays within its limits."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abnn.adaptive import adaptive_attack
from abnn.checkpoint import Checkpoint
from abnn.layer import LayerConfig
from abnn.named_attacks import ATTACKS, AttackOptions, Roa, attack_of, require_possible
from abnn.options import PixelOptions, RectangleOptions
from attacks.objectives import cross_entropy, margin
from attacks.pixels import Norm, PixelConfig, attack_pixels
from attacks.rectangles import RectangleConfig, attack_rectangles
from attacks.restarts import Attempt, strongest
from basics.compute import choose_compute
from basics.errors import UserError
from experiments import CIFAR10
from tests.support import seeded


def test_the_paper_s_attack_is_the_default() -> None:
    pgd = attack_of("pgd", CIFAR10, AttackOptions())
    assert pgd.name == "pgd-5"
    assert pgd.settings() == {
        "eps": 8 / 255, "steps": 5, "step_size": 2 / 255, "norm": "linf", "random_start": True, "restarts": 1,
    }  # fmt: skip
    roa = attack_of("roa", CIFAR10, AttackOptions())
    assert isinstance(roa, Roa)
    assert (roa.config.area, roa.config.steps, roa.config.step_size, roa.config.colour) == (0.1, 5, 70 / 255, 0.5)


def test_names_show_strength() -> None:
    def name(attack: str, **options: object) -> str:
        return attack_of(attack, CIFAR10, AttackOptions(**options)).name  # type: ignore[arg-type]

    assert name("pgd-50") == "pgd-50x5"
    assert name("pgd", pixels=PixelOptions(steps=20), restarts=3) == "pgd-20x3"
    assert [name("roa"), name("roa-gradient"), name("roa-random")] == ["roa", "roa-gradient", "roa-random"]


@pytest.mark.slow
@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "autoattack"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_attack_stays_in_its_ball_and_in_range(runs: dict[str, Checkpoint], attack: str, norm: Norm) -> None:
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    image[0], image[1] = 0, 1
    eps = 0.05 if norm == "linf" else 0.7
    options = AttackOptions(pixels=PixelOptions(norm=norm, eps=eps, steps=3, step_size=eps), surrogate=runs["none"])
    named = attack_of(attack, CIFAR10, options)
    with seeded(0):
        found = named(runs["abnn"].module, image, torch.arange(4), 0)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    shift = (found - image).flatten(1)
    if "eps" in named.settings():
        reach = shift.abs().amax(1) if norm == "linf" else shift.norm(dim=1)
        assert float(reach.max()) <= eps + 1e-6
    assert bool((shift != 0).any()) == (attack != "clean")


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        ("magic", {}, "no attack 'magic'"),
        ("transfer", {}, "--surrogate"),
        ("pgd", {"pixels": PixelOptions(eps=1.2)}, r"lies in \[0, 1\]"),
        ("pgd", {"pixels": PixelOptions(eps=-0.1)}, "not negative"),
        ("pgd", {"restarts": 0}, "restarts is 0"),
        ("roa", {"rectangle": RectangleOptions(area=2.0)}, "area is 2"),
    ],
)
def test_impossible_settings_are_refused(attack: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        attack_of(attack, CIFAR10, AttackOptions(**options))  # type: ignore[arg-type]


BALL = PixelConfig(eps=0.03, steps=2, step_size=0.01)
LABEL = torch.tensor([0, 1, 2, 3])


def pictures() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def carried_out(attack: str, network: nn.Module, **options: Any) -> Tensor:
    pixels: dict[str, Any] = {}
    if not attack.startswith("roa"):
        pixels["pixels"] = PixelOptions(eps=0.03, steps=2, step_size=0.01)
    named = attack_of(attack, CIFAR10, AttackOptions(**pixels, **options))
    with seeded(7):
        return named(network, pictures(), LABEL, 0)


def climbing(network: nn.Module) -> Attempt:
    def attempt(image: Tensor, label: Tensor) -> Tensor:
        return attack_pixels(lambda moved: cross_entropy(network(moved), label), image, BALL)

    return attempt


@pytest.mark.slow
def test_restarts_are_as_many_as_said(runs: dict[str, Checkpoint]) -> None:
    network = runs["abnn"].module
    # Labels that the network gives itself: nothing is wrong from the start, and every restart counts.
    label = network(pictures()).argmax(1)
    pixels = PixelOptions(eps=0.001, steps=2, step_size=0.0005)
    named = attack_of("pgd", CIFAR10, AttackOptions(restarts=3, pixels=pixels))
    config = PixelConfig(eps=0.001, steps=2, step_size=0.0005)

    def attempt(image: Tensor, label: Tensor) -> Tensor:
        return attack_pixels(lambda moved: cross_entropy(network(moved), label), image, config)

    def expected(times: int) -> Tensor:
        with seeded(7):
            return strongest([attempt] * times, network, pictures(), label).image_N3HW

    with seeded(7):
        found = named(network, pictures(), label, 0)
    assert torch.equal(found, expected(3))
    assert not torch.equal(expected(3), expected(1)), "one start would have done"


@pytest.mark.slow
def test_the_adaptive_attack_tries_every_weight(runs: dict[str, Checkpoint]) -> None:
    network = runs["abnn"].module
    label = network(pictures()).argmax(1)
    config = PixelConfig(eps=0.001, steps=2, step_size=0.0005)

    def expected(*weights: float) -> Tensor:
        with seeded(7):
            attempts = [adaptive_attack(network, config, weight) for weight in weights]
            return strongest(attempts, network, pictures(), label, margin).image_N3HW

    named = attack_of("adaptive", CIFAR10, AttackOptions(pixels=PixelOptions(eps=0.001, steps=2, step_size=0.0005)))
    with seeded(7):
        found = named(network, pictures(), label, 0)
    assert torch.equal(found, expected(0, 1, 10, 100))
    assert not torch.equal(expected(0, 1, 10, 100), expected(0)), "the first weight would have done"


def test_a_transfer_attack_never_calls_the_attacked_network(runs: dict[str, Checkpoint]) -> None:
    class Closed(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            raise AssertionError("it was called")

    found = carried_out("transfer", Closed(), surrogate=runs["none"])
    with seeded(7):
        expected = climbing(runs["none"].module)(pictures(), LABEL)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("search", ["exhaustive", "gradient", "random"])
def test_a_rectangle_is_turned_against_the_network(runs: dict[str, Checkpoint], search: Any) -> None:
    network = runs["none"].module

    def loss_of(image: Tensor) -> Tensor:
        return F.cross_entropy(network(image), LABEL, reduction="none")

    found = carried_out(
        "roa" if search == "exhaustive" else f"roa-{search}", network, rectangle=RectangleOptions(stride=8)
    )
    with seeded(7):
        expected = attack_rectangles(loss_of, pictures(), RectangleConfig(stride=8, search=search))
    assert torch.allclose(found, expected, atol=1e-6)
    if search == "exhaustive":
        assert float(loss_of(found).mean().detach()) > float(loss_of(pictures()).mean().detach())


def test_splitting_a_batch_is_refused_if_predictions_depend_on_the_batch(
    runs: dict[str, Checkpoint],
) -> None:
    plan = runs["abnn"].plan
    batch = replace(runs["abnn"], plan=replace(plan, layer=LayerConfig(statistics="batch")))
    compute = choose_compute("cpu", "fp32")
    for attack in ("pgd-50", "adaptive", "autoattack"):
        if attack == "autoattack":
            pytest.importorskip("pyautoattack")
        named = attack_of(attack, CIFAR10, AttackOptions())
        require_possible(named, runs["abnn"], compute)
        with pytest.raises(UserError, match="depend on the whole batch"):
            require_possible(named, batch, compute)
    require_possible(attack_of("pgd", CIFAR10, AttackOptions()), batch, compute)


def test_what_autoattack_cannot_do_is_refused_at_once(runs: dict[str, Checkpoint]) -> None:
    pytest.importorskip("pyautoattack")
    named = attack_of("autoattack", CIFAR10, AttackOptions())
    with pytest.raises(UserError, match="fp64"):
        require_possible(named, runs["none"], choose_compute("cpu", "fp64"))
    few = replace(runs["none"], classes=("a", "b", "c"))
    with pytest.raises(UserError, match="four classes"):
        require_possible(named, few, choose_compute("cpu", "fp32"))
