"""Checks that an evaluation of a defence has to pass before its numbers mean anything.

They detect masked gradients and attacks that are too weak (Athalye et al. 2018; Carlini et al. 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from abnn.named_attacks import STRONG_STEPS, Pgd, Transfer
from attacks.micro_batches import in_micro_batches, outputs_in_micro_batches
from attacks.objectives import cross_entropy
from attacks.pixels import PixelConfig

STEPS = (1, 5, 20, STRONG_STEPS)
"""Numbers of PGD's steps that are compared."""
RADII = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Radii that are tried, as multiples of the benchmark's."""
TOLERANCE = 0.01
"""Share of images by which a stronger attack may be weaker: random starts differ."""
_ROUNDING = 1e-6
"""Tolerance for rounding of accuracies, which are shares of a few images."""
NOISE_DRAWS = 50
"""Random sign patterns, each as large as the ball, that PGD has to beat on every image."""
SURFACE_POSITIONS = 21
"""Positions on each axis of the loss surface."""
SURFACE_REACH = 1.5
"""How far the loss surface goes along the attack, in lengths of its perturbation."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check and its outcome."""

    name: str
    """Name in the printed list."""
    passed: bool
    """Whether it passed."""
    numbers: str
    """The numbers behind it, as text."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Loss of images on planes through the attack's direction and a random one of the same length."""

    along_P: NDArray[np.float64]
    """P positions on both axes, in lengths of the attack's perturbation."""
    loss_KPP: NDArray[np.float64]
    """Cross-entropy of K images; the second axis is the attack's direction."""


def check(  # noqa: PLR0913, PLR0917 (the network, on what, under what)
    network: nn.Module,
    image_N3HW: Tensor,
    label_N: Tensor,
    config: PixelConfig,
    transfer: Transfer | None,
    micro_batch: int | None = None,
) -> list[Check]:
    """Return every check's outcome; random starts come from torch's global generator.

    Args:
        network: images in [0, 1] -> logits, frozen, in evaluation mode.
        image_N3HW: images, or clips (N, 3, T, H, W).
        label_N: their classes.
        config: the benchmark's attack.
        transfer: an attack made on a surrogate network; None leaves its check out.
        micro_batch: most images in one pass of the network, which changes no result; None passes all.
    """
    checks = _Checks(network, image_N3HW, label_N, config, micro_batch)
    return [
        checks.better_than_guessing(),
        checks.repeatable(),
        checks.gradients(),
        checks.steps(),
        checks.radii(),
        checks.free_pixels(),
        checks.noise(),
        *([] if transfer is None else [checks.black_box(transfer)]),
    ]


class _Checks:
    """The checks of one network on some images; accuracy under the strong attack is computed once."""

    def __init__(
        self,
        network: nn.Module,
        image_N3HW: Tensor,
        label_N: Tensor,
        config: PixelConfig,
        micro_batch: int | None,
    ) -> None:
        self.network, self.image, self.label, self.config = network, image_N3HW, label_N, config
        self.micro_batch, self.outputs_of = micro_batch, outputs_in_micro_batches(network, micro_batch)
        self.strong = self._under(steps=STRONG_STEPS)

    def _accuracy(self, image_N3HW: Tensor) -> float:
        return float((self.outputs_of(image_N3HW).argmax(1) == self.label).double().mean())

    def _under(self, **settings: Any) -> float:
        attack = Pgd(config=replace(self.config, **settings))
        return self._accuracy(attack(self.network, self.image, self.label, 0, self.micro_batch))

    def better_than_guessing(self) -> Check:
        guessing = 1 / self.outputs_of(self.image[:1]).shape[1]
        reached = self._accuracy(self.image)
        numbers = f"accuracy {reached:.1%} without attack, by guessing {guessing:.1%}"
        return Check(name="better than guessing", passed=reached > guessing + TOLERANCE, numbers=numbers)

    def repeatable(self) -> Check:
        difference = float((self.outputs_of(self.image) - self.outputs_of(self.image)).abs().max())
        return Check(
            name="same images, same predictions", passed=difference == 0, numbers=f"largest difference {difference:.2g}"
        )

    def gradients(self) -> Check:
        leaf = self.image.detach().requires_grad_()
        loss_of = in_micro_batches(
            lambda image, part: cross_entropy(self.network(image), self.label[part]), self.micro_batch
        )
        (gradient,) = torch.autograd.grad(loss_of(leaf).sum(), leaf)
        length_N = gradient.flatten(1).norm(dim=1)
        broken, none = int((~length_N.isfinite()).sum()), int((length_N == 0).sum())
        passed = broken == 0 and none <= TOLERANCE * len(length_N)
        what = "images" if self.image.ndim == 4 else "clips"
        numbers = f"of {len(length_N)} {what} {none} have none, {broken} have one that is no number"
        return Check(name="gradients exist", passed=passed, numbers=numbers)

    def steps(self) -> Check:
        # One step has to be able to reach the ball's border.
        reached = [
            self._under(steps=1, step_size=self.config.eps),
            *(self._under(steps=steps) for steps in STEPS[1:-1]),
        ]
        return _falling("more steps are never weaker", [f"{steps}" for steps in STEPS], [*reached, self.strong])

    def radii(self) -> Check:
        reached = [
            self.strong if times == 1 else self._under(
                eps=times * self.config.eps, step_size=times * self.config.step_size, steps=STRONG_STEPS
            )
            for times in RADII
        ]  # fmt: skip
        names = [f"eps {times * self.config.eps:.3g}" for times in RADII]
        return _falling("a larger ball is never weaker", names, reached)

    def free_pixels(self) -> Check:
        # From the image itself and in small steps: a random start in [0, 1] would be pure noise.
        reached = self._under(eps=1.0, step_size=self.config.eps, steps=STRONG_STEPS, random_start=False)
        return Check(name="free pixels reach 0%", passed=reached == 0, numbers=f"accuracy {reached:.1%} at eps 1")

    def noise(self) -> Check:
        worst_N = torch.ones_like(self.label, dtype=torch.bool)
        for _ in range(NOISE_DRAWS):
            perturbation = (2 * torch.rand_like(self.image) - 1).sign() * self.config.eps
            worst_N &= self.outputs_of((self.image + perturbation).clamp(0, 1)).argmax(1) == self.label
        reached = float(worst_N.double().mean())
        numbers = f"PGD {self.strong:.1%}, the worst of {NOISE_DRAWS} draws of noise {reached:.1%}"
        return Check(
            name="gradients beat noise", passed=self.strong <= reached + TOLERANCE + _ROUNDING, numbers=numbers
        )

    def black_box(self, transfer: Transfer) -> Check:
        reached = self._accuracy(transfer(self.network, self.image, self.label, 0, self.micro_batch))
        numbers = f"white box {self.strong:.1%}, from {transfer.surrogate.name} {reached:.1%}"
        return Check(
            name="white box beats black box", passed=self.strong <= reached + TOLERANCE + _ROUNDING, numbers=numbers
        )


def _falling(name: str, settings: Sequence[str], accuracies: Sequence[float]) -> Check:
    passed = all(after <= before + TOLERANCE + _ROUNDING for before, after in pairwise(accuracies))
    numbers = ", ".join(f"{setting}: {value:.1%}" for setting, value in zip(settings, accuracies, strict=True))
    return Check(name=name, passed=passed, numbers=numbers)


def loss_surface(
    network: nn.Module,
    image_K3HW: Tensor,
    label_K: Tensor,
    config: PixelConfig,
    micro_batch: int | None = None,
) -> Surface:
    """Return the loss around images: along PGD's perturbation, and along a random direction of the same length.

    Args:
        network: as for `check`.
        image_K3HW: a few images, or clips.
        label_K: their classes.
        config: the benchmark's attack; the strong number of steps is taken.
        micro_batch: as for `check`.
    """
    attack = Pgd(config=replace(config, steps=STRONG_STEPS))
    ahead = attack(network, image_K3HW, label_K, 0, micro_batch) - image_K3HW
    across = torch.randn_like(ahead)
    across *= _length(ahead) / _length(across)
    along = np.linspace(-SURFACE_REACH, SURFACE_REACH, SURFACE_POSITIONS)
    outputs_of = outputs_in_micro_batches(network, micro_batch)
    loss = [
        [cross_entropy(outputs_of(image_K3HW + x * ahead + y * across), label_K) for x in along.tolist()]
        for y in along.tolist()
    ]
    stacked = torch.stack([torch.stack(row, dim=-1) for row in loss], dim=1)
    return Surface(along_P=along, loss_KPP=stacked.double().cpu().numpy())


def _length(value_K3HW: Tensor) -> Tensor:
    """Return the length of each sample's values, such that they can be divided by it."""
    length: Tensor = value_K3HW.flatten(1).norm(dim=1).view(-1, *[1] * (value_K3HW.ndim - 1))
    return length
