"""Training a classifier from scratch: plain cross-entropy, as little as the embedded world needs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from basics.compute import Compute
from networks.classifiers import build_network, save_classifier
from networks.normalise import Normalise
from training.config import TrainingConfig
from training.data import TrainingImages
from training.loop import train

CLASSIFIER_FILE = "classifier.safetensors"
_EVALUATION_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class SideImage:
    """A second, linear output that has to paint the image from early features.

    A network that only learns shapes from little data throws colours away in its first layers, and no decoder could
    bring them back: an autoencoder cut from it would reconstruct badly. ImageNet's classes make networks keep them.
    """

    tap: str
    """Name of the module whose output has to tell the image."""
    channels: int
    """Channels of that output at the network's width."""
    reduction: int
    """Pixels of the image's side per position of that output."""
    coarseness: int
    """Side of the squares of pixels that are painted as one (their mean)."""
    weight: float
    """Weight of the painted image's mean squared error beside the cross-entropy."""


class _Trained(nn.Module):
    """The network with normalisation in front and, if asked for, the side image: images -> (logits, side image)."""

    def __init__(self, network: nn.Module, side: SideImage | None) -> None:
        super().__init__()
        self.network, self.normalise = network, Normalise()
        self.paint: nn.Module | None = None
        self._tapped: Tensor | None = None
        if side is not None:
            finer = side.reduction // side.coarseness
            outputs = 3 * finer**2
            self.paint = nn.Sequential(nn.Conv2d(side.channels, outputs, 1), nn.PixelShuffle(finer))
            network.get_submodule(side.tap).register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._tapped = output

    def forward(self, image_N3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = self.network(self.normalise(image_N3HW))
        tapped, self._tapped = self._tapped, None
        return logits, None if self.paint is None else self.paint(tapped)


class ClassifierTask:
    """Cross-entropy of a torchvision network on labelled images."""

    def __init__(  # noqa: PLR0913 (what, how wide, tried on what, where to)
        self,
        name: str,
        classes: int,
        width: float,
        *,
        held_out: TrainingImages,
        out: Path,
        side: SideImage | None,
        options: Mapping[str, Any],
    ) -> None:
        self.name, self.classes, self.width, self.held_out, self.out = name, classes, width, held_out, out
        self.side = side
        self.network = build_network(name, classes, width, **options)
        self.module: nn.Module = _Trained(self.network, side)

    @property
    def leaves(self) -> tuple[Path]:
        """The weights file."""
        return (self.out / CLASSIFIER_FILE,)

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """AdamW."""
        return AdamW(self.module.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        """Cross-entropy (plus the side image's error), and the share of right answers."""
        logits, painted = module(image_N3HW)
        loss = F.cross_entropy(logits, label_N)
        if painted is not None and self.side is not None:
            loss = loss + self.side.weight * F.mse_loss(painted, F.avg_pool2d(image_N3HW, self.side.coarseness))
        return {"loss": loss, "top1": (logits.argmax(1) == label_N).float().mean()}

    @torch.no_grad()
    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:  # noqa: ARG002 (the loop's signature)
        """Score the held-out images and write the weights."""
        self.module.eval()
        right = sum(
            int((self.module(image.to(compute.device, compute.dtype) / 255)[0].argmax(1).cpu() == label).sum())
            for image, label in batched(self.held_out, _EVALUATION_BATCH)
        )
        top1 = right / len(self.held_out)
        save_classifier(
            self.leaves[0],
            self.name,
            self.network,
            self.classes,
            self.width,
            image_size=self.held_out.image_size,
            top1=top1,
        )
        return {"held_out_top1": top1}


def batched(images: TrainingImages, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all images in order, as batches of 8-bit images and labels."""
    for start in range(0, len(images), size):
        samples = [images[0, index] for index in range(start, min(start + size, len(images)))]
        yield torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


def fit_classifier(  # noqa: PLR0913 (what, how wide, on what, tried on what, how, where to)
    name: str,
    width: float,
    images: TrainingImages,
    *,
    held_out: TrainingImages,
    config: TrainingConfig,
    out: Path,
    side: SideImage | None = None,
    options: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Train a torchvision network (narrowed by `width`, with torchvision's `options`) into the folder `out`.

    `facts` are what else tells this run from another; `overwrite` starts anew.

    Returns:
        Its weights file.

    Raises:
        UserError: unknown network, or `out` holds another run.
    """
    torch.manual_seed(config.seed)
    task = ClassifierTask(
        name, images.source.classes.count, width, held_out=held_out, out=out, side=side, options=options
    )
    settings = {"network": name, "width": width, "side": asdict(side) if side else None, "options": dict(options)}
    train(task, images, config, out, {**settings, **(facts or {})}, overwrite=overwrite)
    return task.leaves[0]
