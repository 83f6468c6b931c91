"""AutoAttack through its wrapper; the attacks themselves are their authors'."""

import logging
import sys

import pytest
import torch
from torch import Tensor, nn

from attacks.autoattack import AutoAttackConfig, auto_attack
from basics.errors import UserError
from tests.support import seeded

EPS = 2 / 255


@pytest.fixture
def network() -> nn.Module:
    pytest.importorskip("pyautoattack", reason="pyautoattack is not installed (extra `autoattack`)")
    with seeded(0):
        layers = nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 5)
        return nn.Sequential(*layers).eval().requires_grad_(False)


def images() -> Tensor:
    return torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_adversarial_images_fool_lie_in_the_ball_and_are_reproducible(network: nn.Module, norm: str) -> None:
    eps = EPS if norm == "linf" else 0.15
    config = AutoAttackConfig(eps=eps, norm=norm, parts=("apgd-ce", "square"), queries=20, batch_size=5)  # type: ignore[arg-type]
    label = network(images()).argmax(1)
    # One is misclassified without an attack: it counts as fooled, and stays as it is.
    label[0] = (label[0] + 1) % 5
    before = torch.random.get_rng_state()
    found = auto_attack(network, images(), label, config)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(network(found.image_N3HW).argmax(1) != label, found.fooled_N)
    assert 1 < int(found.fooled_N.sum()) < 8
    assert torch.equal(found.image_N3HW[0], images()[0])
    assert torch.equal(found.image_N3HW[~found.fooled_N], images()[~found.fooled_N])
    shift = (found.image_N3HW - images()).flatten(1)
    assert float(shift.norm(dim=1, p=torch.inf if norm == "linf" else 2).max()) <= eps + 1e-6
    assert 0 <= float(found.image_N3HW.min()) <= float(found.image_N3HW.max()) <= 1
    again = auto_attack(network, images(), label, config)
    assert torch.equal(again.image_N3HW, found.image_N3HW)


@pytest.mark.slow
def test_all_four_attacks_run_with_fewer_than_ten_classes(network: nn.Module) -> None:
    label = network(images()[:2]).argmax(1)
    found = auto_attack(network, images()[:2], label, AutoAttackConfig(eps=0.5 / 255, queries=5))
    assert found.fooled_N.shape == (2,)
    assert not [warning for warning in found.warnings if "classes" in warning]


def test_its_warnings_are_returned_and_not_printed(network: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    def flat(image: Tensor) -> Tensor:
        return torch.softmax(network(image), 1)

    config = AutoAttackConfig(eps=EPS, parts=("apgd-ce",))
    found = auto_attack(flat, images(), network(images()).argmax(1), config)
    assert any("probability distribution" in warning for warning in found.warnings)
    assert "probability" not in "".join(capfd.readouterr())
    logger = logging.getLogger("auto-attack")
    assert logger.propagate
    assert not logger.handlers


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UserError, match=r"pip install 'advbn-gen\[autoattack\]'"):
        auto_attack(lambda image: image, images(), torch.zeros(8, dtype=torch.long), AutoAttackConfig())


def test_inputs_it_is_not_made_for_are_refused(network: nn.Module) -> None:
    label = torch.zeros(8, dtype=torch.long)
    for wrong in (images().double(), images()[:, :, None], images()[:0]):
        with pytest.raises(UserError, match="AutoAttack is for batches of images"):
            auto_attack(network, wrong, label, AutoAttackConfig())
    with pytest.raises(UserError, match="needs four classes, and the network has 3"):
        auto_attack(lambda image: network(image)[:, :3], images(), label, AutoAttackConfig())


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"eps": 0}, "eps is 0"), ({"eps": 8}, "eps is 8"), ({"eps": float("nan")}, "eps is nan"),
     ({"norm": "l1"}, "no norm 'l1'"), ({"parts": ()}, "parts are"), ({"parts": ("fab",)}, "parts are"),
     ({"queries": 0}, "queries is 0"), ({"batch_size": 0}, "batch size is 0")],
)  # fmt: skip
def test_invalid_settings_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AutoAttackConfig(**changed)  # type: ignore[arg-type]


def test_l2_balls_may_be_larger_than_1() -> None:
    assert AutoAttackConfig(eps=3, norm="l2").eps == 3
