"""Training a classifier from scratch with plain cross-entropy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from basics.compute import Compute
from networks.classifiers import save_classifier, takes_clips
from networks.specs import fresh_network, normalise_of
from networks.weight_files import CLASSIFIER_FILE
from sources.base import ClassMap
from training.config import TrainingConfig
from training.data import TrainingImages
from training.evaluation import CLIP_BATCH, EVALUATION_BATCH, correct, held_out_scores


@dataclass(frozen=True, kw_only=True)
class SideImage:
    """A second, linear output that predicts a coarse copy of the image from early features.

    A network that only learns shapes from little data throws colours away in its first layers, and no decoder could
    bring them back: an autoencoder cut from it would reconstruct badly. ImageNet's classes make networks keep them.
    """

    tap: str
    """Name of the module whose output the image is predicted from."""
    channels: int
    """Channels of that output at the network's width."""
    reduction: int
    """Pixels of the image's side per position of that output."""
    coarseness: int
    """Side of the squares of pixels that are predicted as one (their mean)."""
    weight: float
    """Weight of the predicted image's mean squared error beside the cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """A classifier to be trained from scratch."""

    arch: str
    """Name of the network: torchvision's, `timm:NAME`, or one of `networks.video.CLIP_NETWORKS`."""
    width: float = 1.0
    """Scale of the channels."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """torchvision's options for it."""
    side: SideImage | None = None
    """A second output that is trained beside the classes; None trains the classes alone."""

    def identity(self) -> dict[str, Any]:
        """Return the classifier's part of a run's identity, as a run folder stores it."""
        side = asdict(self.side) if self.side else None
        return {"network": self.arch, "width": self.width, "side": side, "options": dict(self.options)}


class _NetworkWithSideOutput(nn.Module):
    """The network with normalisation in front and, if there is one, its side image: images -> (logits, side image)."""

    def __init__(self, network: nn.Module, config: ClassifierConfig) -> None:
        super().__init__()
        self.network, self.normalise, side = network, normalise_of(config.arch, network), config.side
        # `paint`, which predicts the side image, is a part of the names of weights in stored checkpoints.
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
    """Cross-entropy of a network on labelled images or clips.

    Args:
        config: which network; its fresh weights come from torch's global generator.
        classes: class of each output.
        held_out: images to score after each epoch.
        out: run folder.
    """

    def __init__(self, config: ClassifierConfig, classes: ClassMap, held_out: TrainingImages, out: Path) -> None:
        self.config, self.classes, self.held_out, self.out = config, classes, held_out, out
        self.network = fresh_network(config.arch, classes.count, config.width, **config.options)
        self.module: nn.Module = _NetworkWithSideOutput(self.network, config)

    @property
    def outputs(self) -> tuple[Path]:
        """The weights file."""
        return (self.out / CLASSIFIER_FILE,)

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """Return AdamW over all weights, with the weight decay of the run."""
        return AdamW(self.module.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy (plus the side image's error) and the share of correct predictions."""
        logits, predicted_image = module(image_N3HW)
        loss = F.cross_entropy(logits, label_N)
        side = self.config.side
        if predicted_image is not None and side is not None:
            loss = loss + side.weight * F.mse_loss(predicted_image, F.avg_pool2d(image_N3HW, side.coarseness))
        return {"loss": loss, "top1": (logits.argmax(1) == label_N).float().mean()}

    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:  # noqa: ARG002 (the loop's signature)
        """Score the held-out images and write the weights."""
        batch = CLIP_BATCH if takes_clips(self.config.arch) else EVALUATION_BATCH
        measured = held_out_scores(self.module, self._scores, self.held_out, compute, batch)
        save_classifier(
            self.outputs[0], self.config.arch, self.network, self.classes, self.config.width,
            image_size=self.held_out.image_size, top1=measured["held_out_top1"],
        )  # fmt: skip
        return measured

    def _scores(self, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        logits_NK, _ = self.module(image_N3HW)
        return {"held_out_top1": correct(logits_NK, label_N)}
