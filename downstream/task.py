"""Fine-tuning a classifier from a cut on, with AdvBN (paper section 3 and appendix A) or another method."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.optim import SGD, Optimizer

from attacks.pixels import PixelConfig
from attacks.statistics import AdvBNConfig, alone
from basics.compute import Compute, choose_compute
from basics.errors import UserError
from downstream.advbn import AdvBNNetwork
from downstream.auxiliary import AUXILIARY, MAIN, SETS, freeze
from downstream.exports import FILES, Exports
from downstream.methods import METHODS, Method, Trained
from downstream.mixing import MIXINGS, MOEX, Mixing, MomentExchange
from networks.classifiers import Classifier
from networks.cuts import Cut
from networks.task import batched
from training.augment import POLICIES
from training.config import TrainingConfig
from training.data import TrainingImages, Variation
from training.loop import train

AUGMENTATIONS = (*POLICIES, *MIXINGS)
"""What images and batches may be varied with beside crop and flip."""
PUBLISHED_TRAINING: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 256,
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "schedule": "step",
    "decay_every": 10,
    "image_size": 224,
}
"""SGD with momentum 0.9, a tenth of the learning rate after 10 epochs (appendix A)."""
MOMENTUM = 0.9
PUBLISHED_ATTACKS = {"efficientnet_b0": AdvBNConfig(eps=0.5, steps=3)}
"""Where the paper has other strengths than AdvBNConfig's own."""
PUBLISHED_AUGMENT = {"efficientnet_b0": ("autoaugment",)}
"""What the paper's AdvBN networks were fine-tuned with beside crop and flip, by architecture (appendix A.2)."""

_EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What is fine-tuned, from where on, how it is attacked meanwhile, and how images are varied."""

    start: Classifier
    """The classifier to start from."""
    cut: Cut
    """Where its head begins; what is before stays as it is."""
    method: str = "advbn"
    """One of `downstream.methods.METHODS`."""
    attack: AdvBNConfig = field(default_factory=AdvBNConfig)
    """Strength of the perturbation of statistics."""
    pixels: PixelConfig = field(default_factory=PixelConfig)
    """Strength of the perturbation of pixels, of methods that have one."""
    augment: tuple[str, ...] = ()
    """Any of AUGMENTATIONS."""
    smallest_crop: float = Variation.smallest
    """Smallest share of an image's area that a random crop covers."""
    statistics: Literal["local", "synchronised"] = "local"
    """Whether processes that share a batch perturb the statistics of their parts (published), or those of the whole."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"There is no method {self.method!r}; give one of {', '.join(METHODS)}.")
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
        """The method's terms."""
        return METHODS[self.method]

    @property
    def variation(self) -> Variation:
        """How single images are varied."""
        policies = tuple(name for name in self.augment if name in POLICIES)
        return Variation(crops=True, smallest=self.smallest_crop, policies=policies)

    def facts(self) -> dict[str, Any]:
        """Return what tells this fine-tuning from another."""
        start = {"arch": self.start.name, "width": self.start.width, "start_sha256": self.start.checksum}
        return {
            **start,
            "cut": asdict(self.cut),
            "method": self.method,
            "attack": asdict(self.attack) if self.parts.statistics else None,
            "pixels": asdict(self.pixels) if self.parts.pixels else None,
            "augment": list(self.augment),
            "smallest_crop": self.smallest_crop,
            "statistics": self.statistics if self.parts.statistics else None,
        }


class FineTuningTask:
    """The method's terms, added 1:1; only the head learns."""

    def __init__(self, tuning: FineTuning, held_out: TrainingImages, out: Path, facts: Mapping[str, Any]) -> None:
        self.tuning, self.held_out, self.facts = tuning, held_out, facts
        self.exports = Exports(out, tuning.start, tuning.cut, held_out.view)
        start: Any = copy.deepcopy(tuning.start.module).requires_grad_(True)
        normalise, network = start
        average = over_processes if tuning.statistics == "synchronised" else alone
        self.network = AdvBNNetwork(network, tuning.cut, tuning.attack, average)
        exchange = MomentExchange(self.network.front, tuning.start.name) if MOEX in tuning.augment else None
        self.trained = Trained(self.network, tuning.parts, normalise, tuning.pixels, exchange)
        self.mixing = Mixing([name for name in tuning.augment if name in MIXINGS], tuning.start.classes)
        self.module: nn.Module = self.trained
        if not tuning.parts.uses_auxiliary:
            # Nothing passes through it, and data parallelism waits for the gradient of everything that learns.
            freeze(self.network.head, AUXILIARY)

    @property
    def leaves(self) -> list[Path]:
        """The weights with main and with auxiliary batch norm, and the best ones."""
        return self.exports.leaves

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """SGD over the head."""
        head = [weight for weight in self.module.parameters() if weight.requires_grad]
        return SGD(head, lr=config.lr, momentum=MOMENTUM, weight_decay=config.weight_decay)

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss and their sum."""
        terms: dict[str, Tensor] = module(*self.mixing(image_N3HW, label_N))
        loss = torch.stack([value for name, value in terms.items() if name.endswith("_loss")]).sum()
        return {"loss": loss, **terms}

    @torch.no_grad()
    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
        """Score the held-out images through both sets, and write the weights of both."""
        self.module.eval()
        right = dict.fromkeys(SETS, 0)
        for image, label in batched(self.held_out, _EVALUATION_BATCH):
            feat = self.network.features(self.trained.normalise(image.to(compute.device, compute.dtype) / 255))
            for which in SETS:
                right[which] += int((self.network.answer(feat, which).argmax(1).cpu() == label).sum())
        measured = {f"held_out_top1_{which}": count / len(self.held_out) for which, count in right.items()}
        facts = {**self.facts, "epochs_done": epoch, **measured}
        self.exports.write(self.network, facts, f"held_out_top1_{MAIN}")
        return measured


def over_processes(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes that share a batch."""
    if not distributed.is_initialized():
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def fine_tune(  # noqa: PLR0913 (what, on what, tried on what, how, where to)
    tuning: FineTuning,
    images: TrainingImages,
    *,
    held_out: TrainingImages,
    config: TrainingConfig,
    out: Path,
    facts: Mapping[str, Any],
    overwrite: bool = False,
) -> dict[str, Path]:
    """Fine-tune into the folder `out`; return the file of each batch-norm set.

    On several CUDA devices batch norm is synchronised between them, as in the published code.

    Args:
        tuning: what, from where on, how.
        images: training images.
        held_out: images to score after each epoch.
        config: length, speed, randomness.
        out: run folder.
        facts: what else tells this run from another (source).
        overwrite: start anew, without what an earlier run left in the folder.

    Raises:
        UserError: `out` holds another run, a step would have one image, or there is nothing to tune.
        WorkError: the loss is no longer a number.
    """
    config.require_batches_for_batch_norm()
    told = {**tuning.facts(), **facts, "images": len(images)}
    task = FineTuningTask(tuning, held_out, out, {"training": asdict(config), **told})
    if config.devices > 1 and choose_compute(config.device, config.precision).device.type == "cuda":
        # torch has no synchronised batch norm for the CPU.
        task.network.head = nn.SyncBatchNorm.convert_sync_batchnorm(task.network.head)  # type: ignore[no-untyped-call]
    train(task, images, config, out, told, overwrite=overwrite)
    return {which: out / name for which, name in FILES.items()}
