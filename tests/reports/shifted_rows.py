"""Lines of an evaluation drawn from a seed, for reports without a network."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from downstream.mce import CORRUPTIONS, SEVERITIES
from downstream.summaries import result_rows

C_NAMES = [f"imagenet-c/{name}/{level}" for name in CORRUPTIONS for level in SEVERITIES]
INSTAGRAM_NAMES = [f"imagenet-instagram/Filter {number}" for number in range(20)]
EVERYTHING = [
    *C_NAMES, *INSTAGRAM_NAMES, "imagenet", "imagenet-sketch", "imagenet-style", "imagenet-advbn-vgg",
]  # fmt: skip


def lines(
    model: str, names: list[str], *, which: str | None = None, n: int = 600, seed: int = 0, **changed: Any
) -> list[dict[str, Any]]:
    """One model's lines as `evaluate` writes them, without the summaries."""
    dice = np.random.default_rng(seed)
    return [
        {
            "model": model, "batch_norm": which, "data": name, "suite": suite_of(name), "imagenet": True, "n": n,
            "samples_there": n,
            "top1": int(dice.integers(0, n)) / n, "top5": 1.0, "arch": "resnet50", "weights": "x.pth",
            "weights_sha256": f"{model} {which}", "data_address": f"/data/{name}", "data_fingerprint": name,
            "samples_sha256": name, "transform": "crop 224", "precision": "fp32", "device": "cpu",
            "software": {"torch": "2"}, "pair": f"{model} {which} {name}", **changed,
        }
        for name in names
    ]  # fmt: skip


def suite_of(name: str) -> str:
    """The test set that a subset belongs to."""
    return "advbn" if name == "imagenet-advbn-vgg" else name.partition("/")[0]


def both(model: str, names: list[str], **changed: Any) -> list[dict[str, Any]]:
    """Lines of a model with main and with auxiliary batch norm."""
    return [
        line
        for seed, which in ((5, "main"), (6, "auxiliary"))
        for line in lines(model, names, which=which, seed=seed, **changed)
    ]


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A folder of results, with summaries."""
    folder.mkdir(parents=True)
    complete = result_rows(rows)
    (folder / "results.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in complete))
    return folder
