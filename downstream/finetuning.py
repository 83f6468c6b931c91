"""Fine-tuning a classifier with AdvBN (paper section 3 and appendix A), or plainly, from a cut on."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Optimizer

from attacks.statistics import AdvBNConfig
from basics.compute import Compute
from basics.errors import UserError
from downstream.advbn import AdvBNNetwork
from downstream.auxiliary import AUXILIARY, MAIN, SETS, freeze, state_with
from networks.checkpoints import StateDict
from networks.classifiers import Classifier, save_classifier
from networks.cuts import Cut
from networks.fitting import batched
from networks.normalise import Normalise
from training.config import TrainingConfig
from training.data import TrainingImages
from training.loop import train

METHODS = ("advbn", "plain")
FILES = {MAIN: "main.safetensors", AUXILIARY: "auxiliary.safetensors"}
"""Batch-norm set -> the file with it, a plain torchvision state dict."""

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

_EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What is fine-tuned, from where on, and how strongly it is attacked meanwhile."""

    start: Classifier
    """The classifier to start from."""
    cut: Cut
    """Where its head begins; what is before stays as it is."""
    method: str = "advbn"
    """`advbn`, or `plain` for the same training on clean features alone."""
    attack: AdvBNConfig = field(default_factory=AdvBNConfig)
    """Strength of the perturbation."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"There is no method {self.method!r}; give one of {', '.join(METHODS)}.")

    def facts(self) -> dict[str, Any]:
        """Return what tells this fine-tuning from another."""
        attack = asdict(self.attack) if self.method == "advbn" else None
        start = {"arch": self.start.name, "width": self.start.width, "start_sha256": self.start.checksum}
        return {**start, "cut": asdict(self.cut), "method": self.method, "attack": attack}


class FineTuningTask:
    """Cross-entropy of clean features, and 1:1 that of perturbed ones; only the head learns."""

    def __init__(self, tuning: FineTuning, held_out: TrainingImages, out: Path, facts: Mapping[str, Any]) -> None:
        self.tuning, self.held_out, self.out, self.facts = tuning, held_out, out, facts
        network: nn.Module = copy.deepcopy(tuning.start.module)[1].requires_grad_(True)  # type: ignore[index]
        self.trained = _Trained(AdvBNNetwork(network, tuning.cut, tuning.attack), tuning.method)
        self.module: nn.Module = self.trained
        if tuning.method == "plain":
            # Nothing passes through it, and data parallelism waits for the gradient of everything that learns.
            freeze(self.trained.network.head, AUXILIARY)

    @property
    def leaves(self) -> list[Path]:
        """The weights with main batch norm, and those with auxiliary batch norm."""
        return [self.out / FILES[which] for which in SETS]

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """SGD over the head."""
        head = [weight for weight in self.module.parameters() if weight.requires_grad]
        return SGD(head, lr=config.lr, momentum=MOMENTUM, weight_decay=config.weight_decay)

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss and their sum."""
        terms: dict[str, Tensor] = module(image_N3HW, label_N)
        loss = torch.stack([value for name, value in terms.items() if name.endswith("_loss")]).sum()
        return {"loss": loss, **terms}

    @torch.no_grad()
    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
        """Score the held-out images through both sets, and write the weights of both."""
        self.module.eval()
        network = self.trained.network
        right = dict.fromkeys(SETS, 0)
        for image, label in batched(self.held_out, _EVALUATION_BATCH):
            feat = network.features(self.trained.normalise(image.to(compute.device, compute.dtype) / 255))
            for which in SETS:
                right[which] += int((network.answer(feat, which).argmax(1).cpu() == label).sum())
        measured = {f"held_out_top1_{which}": count / len(self.held_out) for which, count in right.items()}
        self._write({**self.facts, "epochs_done": epoch, **measured})
        return measured

    def _write(self, facts: Mapping[str, Any]) -> None:
        start = self.tuning.start
        for which, name in FILES.items():
            network = self._plain(which)
            told = {"image_size": self.held_out.image_size, "batch_norm": which, "facts": facts}
            save_classifier(self.out / name, start.name, network, start.classes, start.width, **told)

    def _plain(self, which: str) -> nn.Module:
        """Return the network as it was before it was cut, with the trained weights and one set of batch norm."""
        trained = self.trained.network
        network: nn.Module = copy.deepcopy(self.tuning.start.module)[1]  # type: ignore[index]
        state: StateDict = {**trained.front.state_dict(), **state_with(trained.head, which)}
        if self.tuning.cut.left_out is not None:
            state |= _identity(network.get_submodule(self.tuning.cut.left_out), self.tuning.cut.left_out)
        network.load_state_dict({name: value.cpu() for name, value in state.items()})
        return network


def _identity(norm: nn.Module, name: str) -> StateDict:
    """Return the state of a batch norm that passes features as they are: how plain networks hold one left out."""
    assert isinstance(norm, _BatchNorm)  # noqa: S101 (for the type checker)
    ones = torch.ones(norm.num_features)
    state = {
        "weight": (ones + norm.eps).sqrt(),
        "bias": torch.zeros_like(ones),
        "running_mean": torch.zeros_like(ones),
        "running_var": ones,
        "num_batches_tracked": torch.tensor(0),
    }
    return {f"{name}.{key}": value for key, value in state.items()}


class _Trained(nn.Module):
    """Images in [0, 1] and labels -> named losses and shares of right answers."""

    def __init__(self, network: AdvBNNetwork, method: str) -> None:
        super().__init__()
        self.network, self.method, self.normalise = network, method, Normalise()

    def forward(self, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        normalised = self.normalise(image_N3HW)
        if self.method == "plain":
            logits_NK = self.network.answer(self.network.features(normalised), MAIN)
            return {"clean_loss": F.cross_entropy(logits_NK, label_N), "clean_top1": _top1(logits_NK, label_N)}
        losses = self.network(normalised, label_N)
        return {
            "clean_loss": losses.clean,
            "adversarial_loss": losses.adversarial,
            "clean_top1": _top1(losses.clean_NK, label_N),
            "adversarial_top1": _top1(losses.adversarial_NK, label_N),
        }


def _top1(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    return (logits_NK.argmax(1) == label_N).float().mean()


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
    if config.batch_size // config.devices < 2:
        raise UserError("A batch has one image, but batch norm needs two to learn from; give a larger --batch-size.")
    told = {**tuning.facts(), **facts, "images": len(images)}
    task = FineTuningTask(tuning, held_out, out, {"training": asdict(config), **told})
    train(task, images, config, out, told, overwrite=overwrite)
    return {which: out / name for which, name in FILES.items()}
