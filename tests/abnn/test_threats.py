"""Attacks by name: what they are set to, and that each stays where it may go."""

import pytest
import torch

from abnn.checkpoint import Checkpoint
from abnn.tasks import TASKS
from abnn.threats import ATTACKS, Roa, ThreatOptions, threat_of
from basics.errors import UserError
from tests.support import seeded

CIFAR = TASKS["cifar10"]


def test_the_paper_s_attack_is_the_default() -> None:
    pgd = threat_of("pgd", CIFAR, ThreatOptions())
    assert pgd.name == "pgd-5"
    assert pgd.settings() == {
        "eps": 8 / 255, "steps": 5, "step_size": 2 / 255, "norm": "linf", "random_start": True, "restarts": 1,
    }  # fmt: skip
    roa = threat_of("roa", CIFAR, ThreatOptions())
    assert isinstance(roa, Roa)
    assert (roa.config.area, roa.config.steps, roa.config.step_size, roa.config.colour) == (0.1, 5, 70 / 255, 0.5)


def test_names_tell_strength() -> None:
    def name(attack: str, **words: object) -> str:
        return threat_of(attack, CIFAR, ThreatOptions(**words)).name  # type: ignore[arg-type]

    assert name("pgd-50") == "pgd-50x5"
    assert name("pgd", pixels={"steps": 20}, restarts=3) == "pgd-20x3"
    assert [name("roa"), name("roa-gradient"), name("roa-random")] == ["roa", "roa-gradient", "roa-random"]


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "autoattack"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_attack_stays_in_its_ball_and_in_range(runs: dict[str, Checkpoint], attack: str, norm: str) -> None:
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    image[0], image[1] = 0, 1
    eps = 0.05 if norm == "linf" else 0.7
    options = ThreatOptions(pixels={"norm": norm, "eps": eps, "steps": 3, "step_size": eps}, twin=runs["none"])
    threat = threat_of(attack, CIFAR, options)
    with seeded(0):
        found = threat(runs["abnn"].module, image, torch.arange(4), 0)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    shift = (found - image).flatten(1)
    if "eps" in threat.settings():
        reach = shift.abs().amax(1) if norm == "linf" else shift.norm(dim=1)
        assert float(reach.max()) <= eps + 1e-6
    assert bool((shift != 0).any()) == (attack != "clean")


@pytest.mark.parametrize(
    ("attack", "words", "said"),
    [
        ("magic", {}, "no attack 'magic'"),
        ("transfer", {}, "--twin"),
        ("pgd", {"pixels": {"eps": 1.2}}, r"lies in \[0, 1\]"),
        ("pgd", {"pixels": {"eps": -0.1}}, "not negative"),
        ("pgd", {"restarts": 0}, "restarts is 0"),
        ("roa", {"rectangle": {"area": 2.0}}, "area is 2"),
    ],
)
def test_what_makes_no_sense_is_refused(attack: str, words: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        threat_of(attack, CIFAR, ThreatOptions(**words))  # type: ignore[arg-type]
