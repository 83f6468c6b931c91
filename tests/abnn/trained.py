"""What several tests need: a folder of small images in two parts, and networks trained on them for a moment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from abnn.checkpoint import Checkpoint, load_checkpoint
from abnn.request import DefenceRequest, fit_defence
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


def fit(data: Path, out: Path, defence: str, **words: Any) -> Path:
    """Train for an epoch; return the run folder."""
    training: Mapping[str, Any] = {"epochs": 1, "batch_size": 8, "lr": 0.02, **words.pop("training", {})}
    if defence == "abnn" and "substitute" not in words:
        words["substitute"] = str(tiny_classifier(data / "substitute.safetensors", 3, "vgg11_bn"))
    request = DefenceRequest(
        task="cifar10", defence=defence, data=str(data), out=out, training=training, **{"width": WIDTH, **words}
    )
    fit_defence(request)
    return out


def trained(data: Path, out: Path, defence: str, **words: Any) -> Checkpoint:
    """Train for an epoch and load."""
    return load_checkpoint(fit(data, out, defence, **words))
