"""What the requests to all trainers have in common, and what a trainer returns.

Each trainer is two modules of its package: `task.py` says what a training step is, `request.py` has an `XRequest`,
which holds all settings of a run, and a function `train_x(request)`, which checks them, opens images and weights, and
trains into the run folder. Published settings are in `experiments/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basics.compute import choose_compute
from basics.errors import UserError
from basics.files import require_apart
from sources.base import Source
from sources.opening import open_source
from sources.ucf101 import open_clips
from training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """Settings of a training that only those on clips have."""

    frames: int = 40
    """Frames of a clip."""
    lists: str | None = None
    """Folder with UCF-101's split lists; None takes those in or beside the data, or the rule of groups."""
    number: int = 1
    """Which of the published splits: 1, 2 or 3."""
    cache: Path | None = None
    """File in which decoded clips are kept; None decodes them anew in each run."""
    checkpoint_activations: bool = False
    """Whether activations are computed again in the backward pass instead of kept (`networks.recomputation`)."""

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UserError(f"The number of frames is {self.frames}; give 1 or more.")


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """Images, settings and run folder of a training."""

    source: str | Source
    """Training images: an address, or an open source."""
    out: Path
    """Run folder."""
    training: TrainingConfig
    """Length, speed and randomness."""
    held_out: str | Source | None = None
    """Images to score after each epoch; None keeps some of the training images back."""
    labels: Path | None = None
    """Label list or devkit of images in a flat ILSVRC2012 folder."""
    limit: int | None = None
    """Only so many training images, evenly spread."""
    clips: ClipOptions | None = None
    """Settings of clips; None trains on images."""

    def require_possible(self) -> None:
        """Refuse a device or precision that this machine lacks, and a run folder that overlaps with the images.

        Raises:
            UserError: see above.
        """
        choose_compute(self.training.device, self.training.precision)
        for address in (self.source, self.held_out):
            require_apart(address if isinstance(address, str) else None, self.out)


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training wrote and measured."""

    files: Mapping[str, Path]
    """Files with weights, by what they hold."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Held-out scores after the last epoch, and what else is known of the run; empty in all processes but the first."""


def open_if_address(
    source: str | Source,
    *,
    labels: Path | None = None,
    split: str,
    clips: ClipOptions | None = None,
    undivided: bool = False,
) -> Source:
    """Return a source of images or clips: opened, if it is an address.

    Args:
        source: an address, or an open source.
        labels: label list or devkit of a flat ILSVRC2012 folder.
        split: which part of a data set of several parts.
        clips: settings of clips; None opens images.
        undivided: whether clips that nothing divides into splits are all taken.

    Raises:
        UserError: it cannot be read.
    """
    if isinstance(source, Source):
        return source
    if clips is not None:
        return open_clips(source, split=split, lists=clips.lists, number=clips.number, undivided=undivided)
    return open_source(source, labels=labels, split=split)
