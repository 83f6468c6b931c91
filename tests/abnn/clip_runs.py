"""Run folders of tiny, untrained networks of clips, for the embedded drawn clips."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from abnn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from abnn.layer import LayerConfig
from abnn.plan import NetworkPlan, SubstitutePlan, build
from sources.ucf101 import open_clips
from tests.support import seeded

FRAMES, SIDE, WIDTH = 4, 16, 1 / 16
SUBSTITUTE = SubstitutePlan(arch="hara_resnet18", classes=5, width=WIDTH)


def clip_checkpoint(
    folder: Path, *, seed: int = 0, defence: str = "none", statistics: str = "scalar", **changed: Any
) -> Checkpoint:
    """Write a network as `abnn train` does, and load it; `changed` are fields of its plan."""
    classes = open_clips(None, split="test").classes.names
    of_abnn: dict[str, Any] = {}
    if defence == "abnn":
        of_abnn = {"substitute": SUBSTITUTE, "layer": LayerConfig(statistics=statistics)}  # type: ignore[arg-type]
    plan = NetworkPlan(**{
        "arch": "hara_resnet18_b", "classes": len(classes), "image_size": SIDE, "frames": FRAMES, "width": WIDTH,
        **of_abnn, **changed,
    })  # fmt: skip
    with seeded(seed):
        module = build(plan)
        _settle(module, torch.rand(8, 3, plan.frames or FRAMES, SIDE, SIDE))
    metadata = {
        "task": "ucf101", "defence": defence, "resized": False, "seed": seed, "attack": None, "classes": list(classes),
        "training": {}, "images": 0, "epochs_done": 0,
    }  # fmt: skip
    folder.mkdir(parents=True)
    save_checkpoint(folder, module, plan, metadata)
    return load_checkpoint(folder)


def _settle(module: nn.Module, clip: Tensor) -> None:
    """Give batch norm the statistics of clips, in the substitute as well: with fresh ones, features grow endlessly."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm3d)]
    for layer in layers:
        layer.train().momentum = 1.0
    with torch.no_grad():
        module(clip)
    for layer in layers:
        layer.eval().momentum = 0.1
