"""A few clips under an attack, as they were and attacked, beside the attack's results: a report shows them.

clips/<names>.h5   one file for each (network, attack); its attribute `pair` is that of the result
    <number>       data sets of one test clip, by its position among them, uint8 (3, T, S, S): `clean`, and
                   `perturbation`, which has to be added modulo 256; attributes: names of classes (see `KeptClip`)
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basics.files import digest_json, write_bytes
from basics.hdf5 import damaged_hdf5, open_hdf5
from downstream.result_store import CONTENT, Row, images_changed, key_of

CLIPS_FOLDER = "clips"
"""Sub-folder of a folder of results."""
KEPT_CLIPS = 4
_MOST_FRAMES = 16
_NAME_LENGTH = 16
_MEND = "remove it, which leaves its clips out of reports, or make it again with `abnn attack --overwrite`"


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptClip:
    """One test clip, as it was and attacked; with some of its frames only, if it has many."""

    clean_3THW: NDArray[np.uint8]
    """Its frames."""
    attacked_3THW: NDArray[np.uint8]
    """Its frames after the attack, rounded to 8 bits."""
    label: str
    """Name of its class."""
    clean_prediction: str
    """Name of the class that is predicted for it."""
    prediction: str
    """Name of the class that is predicted for the attacked clip."""


KeptClips = Mapping[int, KeptClip]
"""Position among the test clips -> clip."""


def kept_positions(count: int) -> set[int]:
    """Return which of `count` test clips are kept: evenly spread over all, the same for every attack."""
    kept = min(KEPT_CLIPS, count)
    return {number * count // kept for number in range(kept)}


def some_frames(clip_3THW: Tensor) -> NDArray[np.uint8]:
    """Return frames of a clip in [0, 1] at equal distances, at most 16, in 8 bits."""
    step = -(-clip_3THW.shape[1] // _MOST_FRAMES)
    frames = (clip_3THW[:, ::step].float() * 255).round().clamp(0, 255)
    pixels: NDArray[np.uint8] = frames.to(torch.uint8).cpu().numpy()
    return pixels


def write_clips(folder: Path, row: Row, clips: KeptClips) -> None:
    """Write clips of a result, replacing those of an earlier one of the same names.

    Args:
        folder: folder of the results.
        row: the result's row.
        clips: all that are known of it.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update({"pair": row["pair"], CONTENT: row.get(CONTENT, "")})
        for position, clip in sorted(clips.items()):
            group = file.create_group(str(position))
            group.attrs.update({name: getattr(clip, name) for name in _NAMES})
            group.create_dataset("clean", data=clip.clean_3THW, compression="gzip")
            # Small or zero nearly everywhere, so that it takes less room than the attacked clip.
            perturbation = clip.attacked_3THW - clip.clean_3THW
            group.create_dataset("perturbation", data=perturbation, compression="gzip")
    path = _path(folder, row)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


_NAMES = ("label", "clean_prediction", "prediction")


def read_clips(folder: Path, row: Row) -> dict[int, KeptClip]:
    """Return the clips that are kept of a result; none if there are none of just this result on these clips.

    Raises:
        UserError: the file is damaged, or cannot be read.
    """
    path = _path(folder, row)
    if not path.exists():
        return {}
    with open_hdf5(path, advice=_MEND) as file:
        try:
            before = {CONTENT: str(file.attrs.get(CONTENT, ""))}
            if file.attrs["pair"] != row["pair"] or images_changed(before, row):
                return {}
            return {int(position): _read(group) for position, group in file.items()}
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise damaged_hdf5(path, error, _MEND) from error


def _read(group: h5py.Group) -> KeptClip:
    """Return one clip.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    clean, perturbation = group["clean"][()], group["perturbation"][()]
    if clean.dtype != np.uint8 or clean.ndim != 4 or clean.shape != perturbation.shape:
        raise ValueError(f"its clips are {clean.dtype} of {clean.shape}")
    names = {name: str(group.attrs[name]) for name in _NAMES}
    return KeptClip(clean_3THW=clean, attacked_3THW=clean + perturbation, **names)


def _path(folder: Path, row: Row) -> Path:
    return folder / CLIPS_FOLDER / f"{digest_json(list(key_of(row)))[:_NAME_LENGTH]}.h5"
