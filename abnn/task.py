"""Training a network without defence, with ABNN, or by adversarial training (ABNN paper, section 2.2; Madry et al.).

OUDefend is a network with a block of its own that is trained adversarially (Lo, Valanarasu and Patel 2021).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from abnn.checkpoint import save_checkpoint
from abnn.plan import NetworkPlan
from attacks.micro_batches import in_micro_batches
from attacks.objectives import cross_entropy
from attacks.pixels import PixelConfig, attack_pixels
from basics.compute import Compute
from networks.weight_files import MODEL_FILE
from training.config import TrainingConfig
from training.data import TrainingImages
from training.evaluation import correct, held_out_scores

DEFENCES = ("none", "abnn", "pgd-at", "oudefend")
ADVERSARIAL = ("pgd-at", "oudefend")
"""Defences that are trained under attack."""
MOMENTUM = 0.9
"""Momentum of SGD; our choice, because the paper says SGD only."""


class DefenceLoss(nn.Module):
    """Images, or clips, in [0, 1] and labels -> the loss and the share of correct predictions.

    Args:
        network: images -> logits.
        pixels: the attack under which it learns; None learns from clean images.
        micro_batch: most samples that are attacked at a time, to save memory; None attacks a batch as a whole.
    """

    def __init__(self, network: nn.Module, pixels: PixelConfig | None, micro_batch: int | None = None) -> None:
        super().__init__()
        self.network, self.pixels, self.micro_batch = network, pixels, micro_batch

    def forward(self, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy `loss` and `top1`, on attacked images if there is an attack."""
        if self.pixels is not None:
            image_N3HW = self.attacked(image_N3HW, label_N, self.pixels)
        logits = self.network(image_N3HW)
        return {"loss": F.cross_entropy(logits, label_N), "top1": (logits.argmax(1) == label_N).float().mean()}

    def attacked(self, image_N3HW: Tensor, label_N: Tensor, pixels: PixelConfig) -> Tensor:
        """Attack images with the network in its present state, in evaluation mode."""

        def loss_of(moved_N3HW: Tensor, part: slice) -> Tensor:
            # A view, because torch's FLOP counter cannot follow gradients of a leaf tensor that is a module's input.
            return cross_entropy(self.network(moved_N3HW.view_as(moved_N3HW)), label_N[part])

        with _evaluating(self.network):
            return attack_pixels(in_micro_batches(loss_of, self.micro_batch), image_N3HW, pixels)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Use running statistics in batch norm, which the attack must not change."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


class DefenceTask:
    """Cross-entropy of a network with a defence, or without.

    Args:
        trained: the network, and the attack under which it learns.
        plan: what the network is made of.
        held_out: images to score after each epoch.
        out: run folder.
        metadata: metadata of the file of weights beside the scores.
    """

    def __init__(
        self, trained: DefenceLoss, plan: NetworkPlan, held_out: TrainingImages, out: Path, metadata: Mapping[str, Any]
    ) -> None:
        self.network, self.plan, self.held_out = trained.network, plan, held_out
        self.out, self.metadata = out, metadata
        self.module: nn.Module = trained

    @property
    def outputs(self) -> Sequence[Path]:
        """The file with the weights."""
        return (self.out / MODEL_FILE,)

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """Return SGD over everything but the substitute."""
        learning = [weight for weight in self.module.parameters() if weight.requires_grad]
        return SGD(learning, lr=config.lr, momentum=MOMENTUM, weight_decay=config.weight_decay)

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        """Return the loss and the share of correct predictions."""
        terms: dict[str, Tensor] = module(image_N3HW, label_N)
        return terms

    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
        """Score the held-out images, unattacked, and write the weights."""
        measured = held_out_scores(self.module, self._scores, self.held_out, compute, self.plan.evaluation_batch)
        save_checkpoint(self.out, self.network, self.plan, {**self.metadata, "epochs_done": epoch, **measured})
        return measured

    def _scores(self, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        return {"held_out_top1": correct(self.network(image_N3HW), label_N)}
