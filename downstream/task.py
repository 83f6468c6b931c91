"""Fine-tuning a classifier from a cut on, with AdvBN (paper section 3 and appendix A) or another method."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.optim import SGD, Optimizer

from attacks.micro_batches import require_micro_batch
from attacks.pixels import PixelConfig
from attacks.statistics import AdvBNConfig, one_process
from basics.compute import Compute
from basics.errors import UserError
from downstream.advbn import AdvBNNetwork
from downstream.auxiliary import AUXILIARY, MAIN, SETS, freeze
from downstream.exports import Exports
from downstream.methods import METHODS, Method, MethodLoss
from downstream.mixing import MIXINGS, MOEX, Mixing, MomentExchange
from networks.classifiers import Classifier
from networks.cuts import Cut
from training.augment import POLICIES
from training.config import TrainingConfig
from training.data import TrainingImages, Variation
from training.evaluation import correct, held_out_scores

AUGMENTATIONS = (*POLICIES, *MIXINGS)
"""Augmentations of images and batches beside crop and flip."""
MOMENTUM = 0.9
"""Momentum of SGD (appendix A)."""


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Cut, method, attacks and augmentation of a fine-tuning."""

    cut: Cut
    """Where the network is cut: the part before it is frozen."""
    method: str
    """One of `downstream.methods.METHODS`."""
    attack: AdvBNConfig
    """Strength of the perturbation of statistics."""
    pixels: PixelConfig
    """Strength of the perturbation of pixels, of methods that have one."""
    augment: tuple[str, ...]
    """Any of AUGMENTATIONS."""
    smallest_crop: float
    """Smallest share of an image's area that a random crop covers."""
    statistics: Literal["local", "synchronised"] = "local"
    """Whether processes that share a batch perturb the statistics of their parts (published), or those of the whole."""
    micro_batch: int | None = None
    """Most images in one pass of an attack; None passes a batch as a whole."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"There is no method {self.method!r}; give one of {', '.join(METHODS)}.")
        require_micro_batch(self.micro_batch)
        if self.statistics not in {"local", "synchronised"}:
            raise UserError(f"The statistics are {self.statistics!r}; give local or synchronised.")
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise UserError(f"There is no augmentation {name!r}; give one of {', '.join(AUGMENTATIONS)}.")
        if len(set(self.augment)) < len(self.augment):
            raise UserError(f"An augmentation comes twice ({', '.join(self.augment)}); give each once.")
        if MOEX in self.augment and self.parts.pixels is not None:
            raise UserError(f"Moment exchange (moex) cannot be combined with {self.method}; give advbn or plain.")

    @property
    def parts(self) -> Method:
        """The terms of the method's loss."""
        return METHODS[self.method]

    @property
    def variation(self) -> Variation:
        """How single images are varied."""
        policies = tuple(name for name in self.augment if name in POLICIES)
        return Variation(crops=True, smallest=self.smallest_crop, policies=policies)

    def identity(self) -> dict[str, Any]:
        """Return the fine-tuning's part of a run's identity, as a run folder stores it."""
        return {
            "cut": asdict(self.cut),
            "method": self.method,
            "attack": asdict(self.attack) if self.parts.statistics else None,
            "pixels": asdict(self.pixels) if self.parts.pixels else None,
            "augment": list(self.augment),
            "smallest_crop": self.smallest_crop,
            "statistics": self.statistics if self.parts.statistics else None,
            # Earlier versions had none.
            **({} if self.micro_batch is None else {"micro_batch": self.micro_batch}),
        }


def synchronised(head: Any) -> Any:
    """Return a network with synchronised batch norm; timm's keeps the activation that it holds, which torch drops."""
    if any(type(layer).__module__.startswith("timm.") for layer in head.modules()):
        from timm.layers.norm_act import convert_sync_batchnorm

        with_activation: Any = convert_sync_batchnorm(head)  # type: ignore[no-untyped-call]
        return with_activation
    return nn.SyncBatchNorm.convert_sync_batchnorm(head)  # type: ignore[no-untyped-call]


class FineTuningTask:
    """The method's terms, added 1:1; only the head learns.

    Args:
        start: the classifier to start from; it is not changed.
        config: from where on, how.
        held_out: images to score after each epoch.
        out: run folder.
        metadata: metadata of the files of weights beside the scores.
    """

    def __init__(
        self,
        start: Classifier,
        config: FineTuningConfig,
        held_out: TrainingImages,
        out: Path,
        metadata: Mapping[str, Any],
    ) -> None:
        self.held_out, self.metadata = held_out, metadata
        self.exports = Exports(out, start, config.cut, held_out.view)
        start_copy: Any = copy.deepcopy(start.module).requires_grad_(True)
        normalise, network = start_copy
        average = over_processes if config.statistics == "synchronised" else one_process
        self.network = AdvBNNetwork(network, config.cut, config.attack, average, config.micro_batch)
        exchange = MomentExchange(self.network.front, start.name) if MOEX in config.augment else None
        self.trained = MethodLoss(self.network, config.parts, normalise, config.pixels, exchange)
        self.mixing = Mixing([name for name in config.augment if name in MIXINGS], start.classes)
        self.module: nn.Module = self.trained
        if not config.parts.uses_auxiliary:
            # Nothing passes through it, and data parallelism waits for the gradient of everything that learns.
            freeze(self.network.head, AUXILIARY)

    def synchronise_batch_norm(self) -> None:
        """Let batch norm behind the cut take its statistics over all CUDA devices that share a batch."""
        self.network.head = synchronised(self.network.head)

    @property
    def outputs(self) -> list[Path]:
        """The weights with main and with auxiliary batch norm, and the best ones."""
        return self.exports.outputs

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """Return SGD over the head, the part behind the cut."""
        head = [weight for weight in self.module.parameters() if weight.requires_grad]
        return SGD(head, lr=config.lr, momentum=MOMENTUM, weight_decay=config.weight_decay)

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss and their sum."""
        terms: dict[str, Tensor] = module(*self.mixing(image_N3HW, label_N))
        loss = torch.stack([value for name, value in terms.items() if name.endswith("_loss")]).sum()
        return {"loss": loss, **terms}

    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
        """Score the held-out images through both sets, and write the weights of both."""
        measured = held_out_scores(self.module, self._scores, self.held_out, compute)
        run = {**self.metadata, "epochs_done": epoch, **measured}
        self.exports.write(self.network, run, f"held_out_top1_{MAIN}")
        return measured

    def _scores(self, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        feat_NCHW = self.network.features(self.trained.normalise(image_N3HW))
        return {f"held_out_top1_{which}": correct(self.network.logits(feat_NCHW, which), label_N) for which in SETS}


def over_processes(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes that share a batch."""
    if not distributed.is_initialized():
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
