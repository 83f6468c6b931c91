"""Run folders of tiny, untrained networks, of clips (for the embedded drawn ones) and of images."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from abnn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from abnn.plan import NetworkPlan, SubstitutePlan, build
from sources.ucf101 import open_clips
from tests.support import seeded

FRAMES, SIDE, WIDTH = 4, 16, 1 / 16
SUBSTITUTE = SubstitutePlan(arch="hara_resnet18", classes=5, width=WIDTH)


def clip_checkpoint(folder: Path, *, seed: int = 0, defence: str = "none", **changed: Any) -> Checkpoint:
    """Write a network of clips as `abnn train` does, and load it; `changed` are fields of its plan."""
    plan = NetworkPlan(**{
        "arch": "hara_resnet18_b", "classes": len(_classes()), "image_size": SIDE, "frames": FRAMES, "width": WIDTH,
        "substitute": SUBSTITUTE if defence == "abnn" else None, **changed,
    })  # fmt: skip
    return _written(folder, plan, defence, seed)


def image_checkpoint(folder: Path, *, seed: int = 0, defence: str = "none") -> Checkpoint:
    """The same of a network of images of 32 pixels."""
    beside = SubstitutePlan(arch="resnet18", classes=5, width=WIDTH)
    plan = NetworkPlan(
        arch="resnet18", classes=len(_classes()), image_size=32, width=WIDTH,
        substitute=beside if defence == "abnn" else None,
    )  # fmt: skip
    return _written(folder, plan, defence, seed)


def _classes() -> tuple[str, ...]:
    return open_clips(None, split="test").classes.names


def _written(folder: Path, plan: NetworkPlan, defence: str, seed: int) -> Checkpoint:
    with seeded(seed):
        module = build(plan)
        settle(module, torch.rand(8, 3, *plan.size))
    metadata: dict[str, Any] = {
        "task": "cifar10" if plan.frames is None else "ucf101", "defence": defence, "resized": False, "seed": seed,
        "attack": None, "classes": list(_classes()), "training": {}, "images": 0, "epochs_done": 0,
    }  # fmt: skip
    folder.mkdir(parents=True)
    save_checkpoint(folder, module, plan, metadata)
    return load_checkpoint(folder)


def settle(module: nn.Module, image: Tensor) -> None:
    """Give batch norm the statistics of samples, the substitute too: with fresh ones, features grow without end."""
    layers = [layer for layer in module.eval().modules() if isinstance(layer, _BatchNorm)]
    for layer in layers:
        layer.train().momentum = 1.0
    with torch.no_grad():
        module(image)
    for layer in layers:
        layer.eval().momentum = 0.1
