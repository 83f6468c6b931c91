"""Predictions drawn from a seed, for reports of any size without a network."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from downstream.gallery import GallerySample, Picture
from downstream.gap import ROLES, GapInputs
from downstream.predictions import Predictions, Scored

SHARES = {"original": 0.8, "reconstructed": 0.6, "advbn": 0.1}


def predictions(dice: np.random.Generator, label_N: np.ndarray, classes: int, share: float) -> Predictions:
    """Five predicted classes a sample, the first correct in about this share."""
    first = np.where(dice.random(len(label_N)) < share, label_N, dice.integers(0, classes, len(label_N)))
    rest = dice.integers(0, classes, (len(label_N), 4))
    chances = -np.sort(-dice.dirichlet(np.ones(5), len(label_N)), axis=1)
    return Predictions(
        classes_NK=np.column_stack([first, rest]).astype(np.int32), probabilities_NK=chances.astype(np.float32)
    )


def synthetic_inputs(
    samples: int, models: int, classes: int = 1000, *, present: bool = False, seed: int = 0, **changed: Any
) -> GapInputs:
    """A report's inputs."""
    dice = np.random.default_rng(seed)
    label_N = np.sort(dice.integers(0, classes, samples)).astype(np.int32)
    names = [f"model-{number}" for number in range(models)]
    batches = -(-samples // 32)
    manifest = {
        "config": {"encoder": "vgg", "image_size": 256, "attack": {"eps": 1.1, "steps": 6, "step_size": 0.2}},
        "identity": {"classifier": {"sha256": "0"}},
        "classes": {"imagenet": True, "names": []},
        "shards": [],
    }
    values: dict[str, Any] = {
        "models": names,
        "keys": [f"sample_{number:06d}" for number in range(samples)],
        "label_N": label_N,
        "class_names": [f"class {number}" for number in range(classes)],
        "scored": {
            (role, name): Scored(
                row=row(name, role, str(number)),
                predictions={
                    space: predictions(dice, label_N, classes, SHARES[role])
                    for space in (("all", "present") if present else ("all",))
                },
            )
            for number, name in enumerate(names)
            for role in ROLES
        },
        "quality": {"psnr": dice.normal(22, 2, samples), "ssim": dice.beta(8, 3, samples)},
        "ledger": {
            "loss": np.cumsum(dice.random((batches, 7)), axis=1),
            "batch_size": np.full(batches, 32),
            "delta_mean": dice.uniform(-0.1, 2.1, (batches, 512)),
            "delta_std": dice.uniform(-0.1, 2.1, (batches, 512)),
        },
        "manifests": {"reconstructed": manifest, "advbn": manifest},
        "published": {},
    }
    return GapInputs(**{**values, **changed})


def row(model: str, role: str, sha256: str) -> dict[str, Any]:
    """A row of scoring, without its accuracies."""
    return {
        "model": model, "data": role, "arch": "resnet50", "weights": "x.pth", "weights_sha256": sha256,
        "data_address": f"/data/{role}", "data_fingerprint": "f" * 64, "transform": "crop 224", "precision": "fp32",
        "device": "cpu", "software": {"torch": "2"},
    }  # fmt: skip


def synthetic_samples(inputs: GapInputs, count: int, side: int = 192) -> list[GallerySample]:
    """Noise to look at, with rising losses in a shuffled order."""
    dice = np.random.default_rng(1)
    losses = dice.permutation(count).astype(float)
    return [
        GallerySample(
            index=index,
            key=inputs.keys[index],
            pictures={role: _noise(dice, side) for role in ROLES},
            losses=[0.1, float(losses[index])],
        )
        for index in range(count)
    ]


def _noise(dice: np.random.Generator, side: int) -> Picture:
    buffer = io.BytesIO()
    coarse = Image.fromarray(dice.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, format="jpeg", quality=85)
    return Picture(content=buffer.getvalue(), mime="image/jpeg")


def values_of(out: Path) -> Any:
    """The values in the report's JSON file."""
    return json.loads((out / "report.json").read_text())
