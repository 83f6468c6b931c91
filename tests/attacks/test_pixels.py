"""PGD on pixels against a plain loop over single images, and the geometry of its balls."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.pixels import PixelConfig, PixelThreat, attack_pixels
from basics.errors import UserError
from tests.support import seeded


@pytest.fixture
def network() -> nn.Module:
    with seeded(0):
        layers = nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
        return nn.Sequential(*layers).double().requires_grad_(False)


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def attack(network: nn.Module, image: Tensor, label: Tensor, config: PixelConfig) -> Tensor:
    return attack_pixels(lambda moved: F.cross_entropy(network(moved), label, reduction="none"), image, config)


def naive(network: nn.Module, image: Tensor, label: Tensor, config: PixelConfig) -> Tensor:
    moved = image.clone()
    for _ in range(config.steps):
        moved.requires_grad_()
        loss = F.cross_entropy(network(moved[None]), label[None])
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved.detach()
        if config.norm == "linf":
            moved = moved + config.step_size * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, image - config.eps), image + config.eps)
        else:
            moved = moved + config.step_size * gradient / math.sqrt(float((gradient**2).sum()))
            distance = math.sqrt(float(((moved - image) ** 2).sum()))
            if distance > config.eps:
                moved = image + (moved - image) * (config.eps / distance)
        moved = moved.clamp(0, 1)
    return moved


@pytest.mark.parametrize(
    "config",
    [
        PixelConfig(eps=8 / 255, steps=6, step_size=3 / 255, random_start=False),
        PixelConfig(eps=0.6, steps=6, step_size=0.25, norm="l2", random_start=False),
    ],
    ids=["linf", "l2"],
)
def test_an_attack_equals_the_plain_loop_over_images(network: nn.Module, config: PixelConfig) -> None:
    image, label = images(), torch.tensor([0, 3, 4])
    found = attack(network, image, label, config)
    for each, original, truth in zip(found, image, label, strict=True):
        assert torch.allclose(each, naive(network, original, truth, config), rtol=0, atol=1e-12)
    assert not torch.equal(found, image)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball_and_stay_in_it(norm: str) -> None:
    eps = 0.05 if norm == "linf" else 0.3
    grey = torch.full((4000, 3, 2, 2), 0.5, dtype=torch.float64)
    config = PixelConfig(eps=eps, norm=norm)  # type: ignore[arg-type]
    with seeded(0):
        shift = PixelThreat(config, grey).start()[0] - grey
    if norm == "linf":
        assert float(shift.abs().max()) <= eps + 1e-12
        # Uniform: half of the values lie in the inner half of the interval.
        assert float((shift.abs() < eps / 2).double().mean()) == pytest.approx(0.5, abs=0.02)
        return
    length = shift.flatten(1).norm(dim=1)
    assert float(length.max()) <= eps + 1e-12
    # Uniform in a ball of 12 dimensions: a share of r ** 12 lies within r of its radius.
    assert float((length < 0.95 * eps).double().mean()) == pytest.approx(0.95**12, abs=0.03)
    assert float(shift.mean(0).abs().max()) < 0.02


def test_without_a_random_start_and_steps_images_come_back(network: nn.Module) -> None:
    config = PixelConfig(steps=0, random_start=False)
    assert torch.equal(attack(network, images(), torch.tensor([0, 1, 2]), config), images())


def test_images_stay_images(network: nn.Module) -> None:
    extreme = torch.cat([torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)]).double()
    for norm, eps in (("linf", 0.3), ("l2", 3.0)):
        config = PixelConfig(eps=eps, steps=4, step_size=eps / 2, norm=norm)  # type: ignore[arg-type]
        found = attack(network, extreme, torch.tensor([1, 2]), config)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_a_zero_gradient_moves_nothing_in_l2() -> None:
    threat = PixelThreat(PixelConfig(norm="l2", random_start=False), images())
    (moved,) = threat.step((images(),), (torch.zeros(3, 3, 8, 8, dtype=torch.float64),))
    assert torch.equal(moved, images())


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"eps": -1}, "eps is -1"), ({"steps": -1}, "pixel steps is -1"), ({"step_size": 0}, "step size is 0"),
     ({"norm": "l7"}, "no norm 'l7'"), ({"eps": 8}, r"for linf it lies in \[0, 1\]"),
     ({"eps": float("nan")}, "eps is nan"), ({"eps": float("inf"), "norm": "l2"}, "eps is inf")],
)  # fmt: skip
def test_invalid_settings_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PixelConfig(**changed)  # type: ignore[arg-type]


def test_l2_balls_may_be_larger_than_1() -> None:
    assert PixelConfig(eps=3, norm="l2").eps == 3


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("random_start", [False, True])
def test_a_clip_is_one_ball(network: nn.Module, norm: str, random_start: bool) -> None:
    eps = 0.1 if norm == "linf" else 0.5
    config = PixelConfig(eps=eps, steps=3, step_size=eps / 2, norm=norm, random_start=random_start)  # type: ignore[arg-type]
    clip = torch.stack([images(), images().flip(0)], dim=2)

    def loss_of(moved: Tensor) -> Tensor:
        return F.cross_entropy(network(moved.mean(2)), torch.tensor([0, 3, 4]), reduction="none")

    with seeded(0):
        shift = (attack_pixels(loss_of, clip, config) - clip).flatten(1)
    length = shift.abs().amax(1) if norm == "linf" else shift.norm(dim=1)
    assert float(length.max()) <= eps + 1e-12
    assert float(length.min()) > eps / 4


@pytest.mark.slow
def test_linf_equals_an_independent_implementation(network: nn.Module) -> None:
    evasion = pytest.importorskip("art.attacks.evasion", reason="adversarial-robustness-toolbox is not installed")
    from art.estimators.classification import PyTorchClassifier

    plain, image, label = network.float().eval(), images(6).float(), torch.tensor([0, 3, 4, 1, 2, 0])
    config = PixelConfig(eps=8 / 255, steps=6, step_size=3 / 255, random_start=False)
    wrapped = PyTorchClassifier(
        model=plain, loss=nn.CrossEntropyLoss(), input_shape=(3, 8, 8), nb_classes=5, clip_values=(0, 1),
        device_type="cpu",
    )  # fmt: skip
    theirs = evasion.ProjectedGradientDescentPyTorch(
        wrapped, eps=config.eps, eps_step=config.step_size, max_iter=config.steps, num_random_init=0, batch_size=6,
        verbose=False,
    )  # fmt: skip
    expected = torch.from_numpy(theirs.generate(x=image.numpy(), y=label.numpy()))
    torch.testing.assert_close(attack(plain, image, label, config), expected, rtol=0, atol=1e-6)
