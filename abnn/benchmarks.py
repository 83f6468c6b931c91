"""What a benchmark is: a data set, the network that is attacked on it, how strongly, and how it is trained.

The paper's benchmarks are in `experiments/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from abnn.options import PixelOptions
from attacks.pixels import PixelConfig
from basics.errors import UserError
from sources.names import Media
from training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One data set with the settings it is trained and attacked under."""

    name: str
    """Its name on the command line and, as `task`, in checkpoints and results."""
    target: str
    """Name of the network that is attacked."""
    substitute: str
    """Name of the network beside it."""
    pixels: PixelConfig
    """The attack of the tables, which adversarial training uses as well."""
    translation: float
    """Training images are moved by up to this share of their side."""
    training: TrainingConfig
    """How its networks are trained; `image_size` is the side of the data set's own images, or of its clips' frames."""
    frames: int | None = None
    """Frames of its clips; None for a data set of images."""

    @property
    def media(self) -> Media:
        """What its samples are."""
        return "image" if self.frames is None else "clip"

    def ball(self, options: PixelOptions, **preset: Any) -> PixelConfig:
        """Return the benchmark's attack with what a preset and then a user change of it.

        In a ball of another radius a step keeps its share of the radius, unless the step is given as well.

        Args:
            options: the user's changes.
            preset: fields that belong to an attack's name.

        Raises:
            UserError: another norm comes without its radius, there is no step, or a value is impossible.
        """
        given = options.given()
        norm, eps = given.get("norm", self.pixels.norm), given.get("eps", self.pixels.eps)
        if norm != self.pixels.norm and "eps" not in given:
            raise UserError(
                f"The radius of the benchmark's ball is one of {self.pixels.norm}; give --eps with --norm {norm}."
            )
        if given.get("steps", 1) < 1:
            raise UserError(f"The number of steps is {given['steps']}; give 1 or more.")
        config = replace(self.pixels, **{**preset, **given})
        if "step_size" in given or eps <= 0:
            return config
        return replace(config, step_size=self.pixels.step_size * (eps / self.pixels.eps))


def benchmark_of(name: str, benchmarks: Mapping[str, Benchmark]) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in benchmarks:
        raise UserError(f"There is no task {name!r}; give one of {', '.join(benchmarks)}.")
    return benchmarks[name]
