"""Shape against texture (Geirhos et al., 2019): images with the shape of one class and the texture of another.

Shape bias = right by shape / (right by shape + right by texture), over images whose shape and texture are of two
classes. What was decided for neither counts only in the share that was right by either.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.base import ImageRecord

_NAME = re.compile(r"(?P<shape>[A-Za-z_]+)\d+-(?P<texture>[A-Za-z_]+)\d+")


def texture_labels(records: Sequence[ImageRecord], classes: Sequence[str]) -> NDArray[np.int32] | None:
    """Return the class of each image's texture, by its name `<shape><n>-<texture><m>`.

    Args:
        records: images; their labels are the classes of the shapes.
        classes: name of each class.

    Returns:
        The labels (N,); None if any name does not say so, or says another shape than the label.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    found = []
    for record in records:
        cues = _NAME.fullmatch(PurePosixPath(record.name).stem)
        if cues is None or label_of.get(cues["shape"]) != record.label or cues["texture"] not in label_of:
            return None
        found.append(label_of[cues["texture"]])
    return np.array(found, np.int32) if found else None


@dataclass(frozen=True, kw_only=True)
class CueConflict:
    """Decisions of a model where shape and texture say two things."""

    n: int
    """Images whose shape and texture are of two classes."""
    same: int
    """Images left out, whose shape and texture are of one class."""
    shape: float
    """Share of the n decided for the shape."""
    texture: float
    """Share of the n decided for the texture."""
    shape_bias: float | None
    """Share of the shape among decisions for either; None if there are none."""

    def to_json(self) -> dict[str, Any]:
        """Return its values."""
        return {**asdict(self), "either": self.shape + self.texture}


def cue_conflict(
    decision_N: NDArray[np.int32], shape_N: NDArray[np.int32], texture_N: NDArray[np.int32]
) -> CueConflict:
    """Return how a model decided.

    Args:
        decision_N: the class that was decided for.
        shape_N: the class of the shape.
        texture_N: the class of the texture.
    """
    conflict_N = shape_N != texture_N
    n = int(conflict_N.sum())
    by_shape, by_texture = (int((conflict_N & (decision_N == cue_N)).sum()) for cue_N in (shape_N, texture_N))
    either = by_shape + by_texture
    return CueConflict(
        n=n,
        same=len(shape_N) - n,
        shape=by_shape / n if n else 0.0,
        texture=by_texture / n if n else 0.0,
        shape_bias=by_shape / either if either else None,
    )
