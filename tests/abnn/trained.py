"""What several tests need: a folder of small images in two parts, and networks trained on them for a moment."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from abnn.checkpoint import Checkpoint, load_checkpoint
from abnn.options import PixelOptions
from abnn.request import DefenceRequest, train_defence
from experiments import CIFAR10
from tests.support import image_folder, tiny_classifier

CLASSES = ("cat", "dog", "frog", "ship")
WIDTH = 1 / 16


def small_world(root: Path) -> Path:
    """`train/` and `test/` with class folders of 32x32 images."""
    for split, seed, count in (("train", 0, 6), ("test", 1, 3)):
        folder = image_folder(root / split, per_class=count, classes=CLASSES, side=32, seed=seed)
        for path in folder.rglob("*.JPEG"):
            _square(path)
    return root


def _square(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.crop((0, 0, 32, 32)).save(path.with_suffix(".png"))
    path.unlink()


def fit(data: Path, out: Path, defence: str, **changed: Any) -> Path:
    """Train for an epoch, with some fields of the request changed; return the run folder.

    `training` and `attack` are fields of their configs that differ from the benchmark's.
    """
    training = {"epochs": 1, "batch_size": 8, "lr": 0.02, **changed.pop("training", {})}
    attack = changed.pop("attack", None)
    if defence == "abnn" and "substitute" not in changed:
        changed["substitute"] = str(tiny_classifier(data / "substitute.safetensors", 3, "vgg11_bn"))
    request = DefenceRequest(
        benchmark=CIFAR10,
        defence=defence,
        source=str(data),
        out=out,
        training=replace(CIFAR10.training, **training),
        attack=CIFAR10.ball(PixelOptions(**attack)) if attack else None,
        resize="image_size" in training,
        **{"width": WIDTH, **changed},
    )
    train_defence(request)
    return out


def trained(data: Path, out: Path, defence: str, **changed: Any) -> Checkpoint:
    """Train for an epoch and load."""
    return load_checkpoint(fit(data, out, defence, **changed))
