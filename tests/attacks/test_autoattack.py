"""AutoAttack through its authors' package: it stays in its ball and is stronger than PGD."""

import sys
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from attacks.autoattack import autoattack, require_autoattack
from basics.errors import UserError
from tests.support import seeded


def test_a_missing_package_is_said() -> None:
    with (
        mock.patch.dict(sys.modules, {"pyautoattack": None}),
        pytest.raises(UserError, match=r"advbn-gen\[autoattack\]"),
    ):
        require_autoattack()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_finds_what_a_linear_network_gives_away(norm: str) -> None:
    """Of a linear network the closest wrong image is known: an attack must find it exactly where it is in the ball."""
    pytest.importorskip("pyautoattack", reason="the extra `autoattack` is not installed")
    with seeded(0):
        linear = nn.Linear(3 * 6 * 6, 4).requires_grad_(False)
        image = 0.3 + 0.4 * torch.rand(12, 3, 6, 6)
    network = nn.Sequential(nn.Flatten(), linear).eval()
    label = network(image).argmax(1)
    distance = torch.tensor(
        [closest(linear, each.flatten(), int(truth), norm) for each, truth in zip(image, label, strict=True)]
    )
    eps = float(distance.median())
    with seeded(1):
        found = autoattack(network, image, label, eps=eps, norm=norm, classes=4, seed=0)  # type: ignore[arg-type]
    shift = (found - image).flatten(1)
    reach = shift.abs().amax(1) if norm == "linf" else shift.norm(dim=1)
    assert float(reach.max()) <= eps + 1e-5
    fooled = network(found).argmax(1) != label
    assert bool(fooled[distance < 0.95 * eps].all())
    assert not bool(fooled[distance > eps].any())
    assert 0 < int(fooled.sum()) < 12


def closest(linear: nn.Linear, image: Tensor, label: int, norm: str) -> float:
    """Distance to the nearest plane behind which another class wins."""
    logits = linear(image)
    distances = []
    for other in set(range(4)) - {label}:
        weight = linear.weight[label] - linear.weight[other]
        length = weight.abs().sum() if norm == "linf" else weight.norm()
        distances.append(float((logits[label] - logits[other]) / length))
    return min(distances)
