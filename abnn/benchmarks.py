"""The paper's experiments: what is attacked, how strongly, and how it is trained (section 3.1, Table 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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

    def ball(self, given: Mapping[str, Any], **preset: Any) -> PixelConfig:
        """Return the task's attack with what a preset and then a user change of it.

        In a ball of another radius a step keeps its share of the radius, unless the step is given as well.

        Args:
            given: fields of PixelConfig that the user set.
            preset: fields that belong to an attack's name.

        Raises:
            UserError: another norm comes without its radius, there is no step, or a value is impossible.
        """
        norm, eps = given.get("norm", self.pixels.norm), given.get("eps", self.pixels.eps)
        if norm != self.pixels.norm and "eps" not in given:
            raise UserError(
                f"The radius of the task's ball is one of {self.pixels.norm}; give --eps with --norm {norm}."
            )
        if given.get("steps", 1) < 1:
            raise UserError(f"The number of steps is {given['steps']}; give 1 or more.")
        config = replace(self.pixels, **{**preset, **given})
        if "step_size" in given or eps <= 0:
            return config
        return replace(config, step_size=self.pixels.step_size * (eps / self.pixels.eps))


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
