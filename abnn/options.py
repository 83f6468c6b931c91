"""Settings of attacks that a user gives; what is None is as the benchmark or the paper has it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from attacks.pixels import Norm


@dataclass(frozen=True, kw_only=True)
class _Options:
    """Settings that may be left out."""

    def given(self) -> dict[str, Any]:
        """Return the settings that were given, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class PixelOptions(_Options):
    """Changes of a benchmark's attack on pixels, see `attacks.pixels.PixelConfig`."""

    eps: float | None = None
    """Radius of the ball."""
    steps: int | None = None
    """Number of ascent steps."""
    step_size: float | None = None
    """Length of a step."""
    norm: Norm | None = None
    """Norm of the ball."""


@dataclass(frozen=True, kw_only=True)
class RectangleOptions(_Options):
    """Changes of the published attack with rectangles, see `attacks.rectangles.RectangleConfig`."""

    area: float | None = None
    """Share of the image that the rectangle covers."""
    height: int | None = None
    """Height in pixels instead of `area`."""
    width: int | None = None
    """Width in pixels instead of `area`."""
    steps: int | None = None
    """Ascent steps inside the rectangle."""
    step_size: float | None = None
    """Length of such a step."""
    stride: int | None = None
    """Pixels between two positions that are tried."""
    colour: float | None = None
    """Grey of the rectangle before the first step."""
    per_frame: bool | None = None
    """Whether each frame of a clip has its own position."""


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions(_Options):
    """How test clips are found, decoded and shown; they have no effect on images."""

    split_lists: str | None = None
    """Folder of UCF-101's split lists."""
    split_number: int | None = None
    """Which of the published splits; None takes the first."""
    cache: Path | None = None
    """File in which decoded clips are kept."""
    checkpoint_activations: bool | None = None
    """Whether activations are computed again in the backward pass, and not kept (`networks.recomputation`)."""
