"""Training a classifier from scratch: plain cross-entropy, as little as the embedded world needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from networks.classifiers import build_network, save_classifier
from networks.compute import Compute
from networks.normalise import Normalise
from training.config import TrainingConfig
from training.data import TrainingImages
from training.loop import train

CLASSIFIER_FILE = "classifier.safetensors"
_EVALUATION_BATCH = 128


class ClassifierTask:
    """Cross-entropy of a torchvision network on labelled images."""

    def __init__(self, name: str, classes: int, width: float, held_out: TrainingImages, out: Path) -> None:
        self.name, self.classes, self.width, self.held_out, self.out = name, classes, width, held_out, out
        self.network = build_network(name, classes, width)
        self.module = nn.Sequential(Normalise(), self.network)

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """AdamW."""
        return AdamW(self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and the share of right answers."""
        logits: Tensor = module(image_N3HW)
        right = (logits.argmax(1) == label_N).float().mean()
        return {"loss": F.cross_entropy(logits, label_N), "top1": right}

    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:  # noqa: ARG002 (the loop's signature)
        """Score the held-out images and write the weights."""
        self.module.eval()
        right = sum(
            int((self.module(image.to(compute.device, compute.dtype) / 255).argmax(1).cpu() == label).sum())
            for image, label in batched(self.held_out, _EVALUATION_BATCH)
        )
        top1 = right / len(self.held_out)
        save_classifier(self.out / CLASSIFIER_FILE, self.name, self.network, self.classes, self.width, top1=top1)
        return {"held_out_top1": top1}


def batched(images: TrainingImages, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return all images of a small set in order, as batches of 8-bit images and labels."""
    batches = []
    for start in range(0, len(images), size):
        samples = [images[0, index] for index in range(start, min(start + size, len(images)))]
        batches.append((torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])))
    return batches


def fit_classifier(  # noqa: PLR0913 (what, how wide, on what, tried on what, how, where to)
    name: str,
    width: float,
    images: TrainingImages,
    held_out: TrainingImages,
    config: TrainingConfig,
    out: Path,
    facts: Mapping[str, Any],
) -> Path:
    """Train a torchvision network (narrowed by `width`) into the folder `out`; return its weights file.

    Raises:
        UserError: unknown network, or `out` holds another run.
    """
    torch.manual_seed(config.seed)
    task = ClassifierTask(name, images.source.classes.count, width, held_out, out)
    train(task, images, config, out, {"network": name, "width": width, **facts})
    return out / CLASSIFIER_FILE
