"""The paper's experiments: what is attacked, how strongly, and how it is trained (section 3.1, Table 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attacks.pixels import PixelConfig
from basics.errors import UserError

MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class Task:
    """One experiment with its published settings; where the paper is silent, see docs/choices.md."""

    image_size: int
    """Side of the images, in pixels."""
    target: str
    """torchvision name of the network that answers."""
    substitute: str
    """SPEC of the network beside it (see `networks.specs`)."""
    pixels: PixelConfig
    """The attack of the tables, which adversarial training uses as well."""
    shift: float
    """Training images are shifted by up to this share of their side."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TrainingConfig."""


TASKS = {
    "cifar10": Task(
        image_size=32,
        target="resnet18",
        substitute="vgg19_bn",
        pixels=PixelConfig(eps=8 / 255, steps=5, step_size=2 / 255),
        shift=1 / 8,
        training={"epochs": 200, "batch_size": 128, "lr": 0.1, "weight_decay": 5e-4, "schedule": "cosine"},
    ),
}


def task_of(name: str) -> Task:
    """Return an experiment by its name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in TASKS:
        raise UserError(f"There is no task {name!r}; give one of {', '.join(TASKS)}.")
    return TASKS[name]
