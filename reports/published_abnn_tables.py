"""Published numbers of the ABNN paper's Tables 1 to 3, and whether results were obtained as it states.

`reports.abnn` and `reports.abnn_tables` put them beside ours.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments import CIFAR10, UCF101

CLEAN, PGD, ROA = "clean", "pgd", "roa"
"""The columns of the tables."""

_BENCHMARKS = {benchmark.name: benchmark for benchmark in (CIFAR10, UCF101)}
_STEPS = CIFAR10.pixels.steps
"""Steps of PGD and of ROA."""
_AREA = 0.1
_AREA_ROUNDING = 0.005
"""A rectangle of whole pixels is not exactly a tenth of the image: 35x35 of 112x112 are 0.098."""
_SAMPLES = {"cifar10": {10_000}, "ucf101": {3_783, 3_734, 3_696}}
"""Test samples; of UCF-101 in each of its three official splits, of which the paper names none."""


@dataclass(frozen=True, kw_only=True)
class PublishedMethod:
    """The paper's numbers of a method on a benchmark."""

    passes: int
    """Cost of a training step in network passes N."""
    accuracy: Mapping[str, float]
    """Accuracy in per cent: `clean`, `pgd`, `roa` (the latter on UCF-101 only)."""


# Tables 2 and 3 are in one: they have the same clean accuracies and costs.
TABLES_1_TO_3 = {
    "cifar10": {
        "none": PublishedMethod(passes=2, accuracy={CLEAN: 93.4, PGD: 0.0}),
        "pgd-at": PublishedMethod(passes=12, accuracy={CLEAN: 83.3, PGD: 51.6}),
        "abnn": PublishedMethod(passes=3, accuracy={CLEAN: 87.5, PGD: 31.5}),
    },
    "ucf101": {
        "none": PublishedMethod(passes=2, accuracy={CLEAN: 93.0, PGD: 0.0, ROA: 7.0}),
        "oudefend": PublishedMethod(passes=24, accuracy={CLEAN: 62.0, PGD: 58.6, ROA: 13.6}),
        "abnn": PublishedMethod(passes=3, accuracy={CLEAN: 68.3, PGD: 43.4, ROA: 24.4}),
    },
}
TABLES = {"cifar10": "Table 1", "ucf101": "Tables 2 and 3"}
"""Benchmark -> the paper's tables on it."""


def published_methods(task: str) -> Mapping[str, PublishedMethod]:
    """Return the methods of a benchmark's tables, defence -> numbers; empty for one that the paper does not have."""
    return TABLES_1_TO_3.get(task, {})


def published_attack(task: str, attack: str, settings: Mapping[str, Any]) -> str | None:
    """Return which column of the paper's tables an attack belongs to: `clean`, `pgd`, `roa`; None if to none.

    Only what the paper states is compared, which is silent on step sizes and starts. It does not say either how ROA
    finds its position; its published code draws one for each frame. Whether gradients were cut, as there, is not
    compared.

    Args:
        task: name of the benchmark.
        attack: name of the attack.
        settings: settings of the attack.
    """
    kind = attack.partition("-")[0]
    if task not in TABLES_1_TO_3 or (kind == ROA and task == "cifar10"):
        return None
    same = {CLEAN: attack == CLEAN, PGD: _is_pgd(task, settings), ROA: _is_roa(task, settings)}
    return kind if same.get(kind, False) else None


def is_published_network(row: Mapping[str, Any]) -> bool:
    """Whether a line's network and test set are the paper's, as far as the line says.

    Args:
        row: a line with `task`, `defence`, `arch`, `width`, `n` and `cost`, and of clips `frames` and `image_size`.
    """
    method = published_methods(row["task"]).get(row["defence"])
    if method is None:
        return False
    benchmark = _BENCHMARKS[row["task"]]
    published = row["arch"] == benchmark.target and row["width"] == 1
    # Lines on images do not say how large they are.
    size = {"frames": benchmark.frames, "image_size": benchmark.training.image_size}
    same_size = all(row.get(name, value) == value for name, value in size.items())
    trained_alike = row["cost"] is None or row["cost"]["passes"] == method.passes
    return published and same_size and row["n"] in _SAMPLES[row["task"]] and trained_alike


def _is_pgd(task: str, settings: Mapping[str, Any]) -> bool:
    once = settings.get("restarts") in {None, 1}
    eps = _BENCHMARKS[task].pixels.eps
    return settings.get("norm") == "linf" and _near(settings.get("eps"), eps) and _five_steps(settings) and once


def _is_roa(task: str, settings: Mapping[str, Any]) -> bool:
    area, sides = settings.get("area"), (settings.get("height"), settings.get("width"))
    if all(isinstance(side, int) for side in sides):
        area = math.prod(sides) / _BENCHMARKS[task].training.image_size ** 2  # type: ignore[arg-type]
    in_frames = settings.get("search") == "random" and settings.get("per_frame", True) is True
    return _five_steps(settings) and _near(area, _AREA, _AREA_ROUNDING) and in_frames


def _five_steps(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("steps") == _STEPS)


def _near(value: Any, wanted: float, margin: float = 1e-6) -> bool:
    return isinstance(value, int | float) and abs(value - wanted) <= margin
