"""Clips under attack for a page, as in the paper's Figure 3: clean, PGD with its perturbation magnified, and ROA."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from abnn.kept_clips import KeptClip, KeptClips
from downstream.gallery import LOSSLESS_SIDE, encoded_picture
from downstream.result_store import Key, key_of
from reports.abnn import METHODS, TASKS, Report, grouped
from reports.gallery import data_uri
from reports.published_abnn_tables import PGD, ROA

MAGNIFIED = 15
"""How many times as large as it is PGD's perturbation is shown."""
_FRAMES_A_SECOND = 8


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """One attack on one model, whose clips are shown."""

    method: str
    """Name of the model's method in tables."""
    attack: str
    """Name of the attack."""
    magnified: int
    """How many times as large as it is its perturbation is shown."""
    clips: KeptClips
    """Its clips."""


def clip_cards(report: Report, clips: Mapping[Key, KeptClips]) -> list[dict[str, Any]]:
    """Return what the page shows of each clip: as it was, and under PGD and ROA on a model of each method.

    Args:
        report: the report's values.
        clips: (attack, model) -> clips that were kept of it.
    """
    cards = []
    for (task,), rows in grouped(report["rows"], "task").items():
        found: dict[tuple[int, str], list[tuple[_Shown, KeptClip]]] = defaultdict(list)
        for shown in _shown(rows, clips):
            for position, clip in shown.clips.items():
                # Models of other sizes see other frames of the same file.
                frames = sha256(clip.clean_3THW.tobytes()).hexdigest()
                found[position, frames].append((shown, clip))
        cards += [_card(TASKS.get(task, task), position, found[position, frames]) for position, frames in sorted(found)]
    return cards


def _shown(rows: Sequence[Mapping[str, Any]], clips: Mapping[Key, KeptClips]) -> list[_Shown]:
    """Return PGD and ROA on the first model of each method that has clips."""
    found = []
    for (method,), of_method in grouped(rows, "method").items():
        kept = [row for row in of_method if clips.get(key_of(row))]
        of_model = [row for row in kept if row["model"] == kept[0]["model"]]
        for kind, magnified in ((PGD, MAGNIFIED), (ROA, 1)):
            row = _preferred(row for row in of_model if row["attack"].partition("-")[0].partition(" ")[0] == kind)
            if row is not None:
                name = METHODS.get(method, method)
                found.append(
                    _Shown(method=name, attack=row["attack"], magnified=magnified, clips=clips[key_of(row)])
                )  # fmt: skip
    return found


def _preferred(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the row of the paper's attack, or else the first."""
    return min(rows, key=lambda row: row["published_attack"] is None, default=None)


def _card(task: str, position: int, attacked: Sequence[tuple[_Shown, KeptClip]]) -> dict[str, Any]:
    clean = attacked[0][1]
    before = {shown.method: clip.clean_prediction for shown, clip in attacked}
    predictions = [_prediction(clean.label, name, method) for method, name in before.items()]
    films = [_film(clean.clean_3THW, "clean", f"{clean.label}, not attacked", predictions)]
    for shown, clip in attacked:
        times = f", perturbation times {shown.magnified}" if shown.magnified > 1 else ""
        title = f"{shown.method}, {shown.attack}{times}"
        alt = f"{clip.label} under {shown.attack} on {shown.method}{times}, predicted as {clip.prediction}"
        frames = magnified_frames(clip, shown.magnified)
        # A usual JPEG would lose most of such noise.
        fine = shown.magnified > 1
        films.append(_film(frames, title, alt, [_prediction(clip.label, clip.prediction)], fine=fine))
    return {"task": task, "number": position, "label": clean.label, "films": films}


def _prediction(label: str, name: str, model: str = "") -> dict[str, Any]:
    return {"name": name, "correct": name == label, "model": model}


def magnified_frames(clip: KeptClip, times: int) -> NDArray[np.uint8]:
    """Return the attacked frames with a perturbation that is so many times as large, clipped to 0 to 255."""
    clean = clip.clean_3THW.astype(np.int32)
    magnified: NDArray[np.uint8] = (clean + times * (clip.attacked_3THW - clean)).clip(0, 255).astype(np.uint8)
    return magnified


def _film(
    clip_3THW: NDArray[np.uint8],
    title: str,
    alt: str,
    predictions: Sequence[Mapping[str, Any]],
    *,
    fine: bool = False,
) -> dict[str, Any]:
    """Return frames as one picture, a strip in which each frame is below the one before."""
    _, frames, height, width = clip_3THW.shape
    strip = Image.fromarray(clip_3THW.transpose(1, 2, 3, 0).reshape(frames * height, width, 3))
    return {
        "picture": data_uri(encoded_picture(strip, lossless=width <= LOSSLESS_SIDE, fine=fine)),
        "title": title,
        "alt": alt,
        "predictions": predictions,
        "side": width,
        "frames": frames,
        "seconds": frames / _FRAMES_A_SECOND,
        "pixelated": width <= LOSSLESS_SIDE,
    }
