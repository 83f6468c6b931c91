"""AutoAttack (Croce & Hein 2020), as its authors' package `pyautoattack` runs it; needs the extra `autoattack`.

Legend: N images, K classes.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from basics.errors import UserError

Norm = Literal["linf", "l2"]
Part = Literal["apgd-ce", "apgd-t", "fab-t", "square"]


@dataclass(frozen=True, kw_only=True)
class AutoAttackConfig:
    """How AutoAttack is run. Its attacks have no strength to choose but the ball; images are in [0, 1]."""

    eps: float = 8 / 255
    """Radius of the ball around each image; at most 1 for l-inf."""
    norm: Norm = "linf"
    """Which ball."""
    parts: tuple[Part, ...] = get_args(Part)
    """Which of its four attacks; fewer are quicker, and not AutoAttack."""
    queries: int = 5000
    """Forward passes of the square attack; fewer are quicker, and not AutoAttack."""
    seed: int = 0
    """Of all its random starts."""
    batch_size: int = 250
    """How many images go through the network at once."""

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise UserError(f"There is no norm {self.norm!r}; give one of {', '.join(get_args(Norm))}.")
        largest = 1.0 if self.norm == "linf" else sys.float_info.max
        if not 0 < self.eps <= largest:
            raise UserError(f"AutoAttack's eps is {self.eps}; give a number above 0, for linf at most 1, e.g. 8/255.")
        if not self.parts or not set(self.parts) <= set(get_args(Part)):
            raise UserError(f"AutoAttack's parts are {self.parts}; give some of {', '.join(get_args(Part))}.")
        if self.queries < 1:
            raise UserError(f"The number of queries is {self.queries}; give 1 or more (published: 5000).")
        if self.batch_size < 1:
            raise UserError(f"AutoAttack's batch size is {self.batch_size}; give 1 or more.")


@dataclass(frozen=True)
class AutoAttacked:
    """What AutoAttack found."""

    image_N3HW: Tensor
    """Images that fool the network; where none was found, and where it was wrong anyway, the clean ones."""
    fooled_N: Tensor
    """Whether the network's answer to them is wrong."""
    warnings: tuple[str, ...]
    """Its own doubts about the network, e.g. that gradients are zero, or that the square attack did better than those
    that follow gradients. They belong beside the result."""


def auto_attack(
    logits_of: Callable[[Tensor], Tensor], image_N3HW: Tensor, label_N: Tensor, config: AutoAttackConfig
) -> AutoAttacked:
    """Run AutoAttack's standard version: APGD on cross-entropy and on targeted DLR, targeted FAB, square.

    The targeted attacks take the nine likeliest wrong classes, or all if there are fewer. Samples that were fooled are
    not attacked again, so each answer must depend on its own sample alone. torch's global generator is put back after.

    Args:
        logits_of: image_N3HW -> logits_NK; closes over the network, in evaluation mode.
        image_N3HW: images in [0, 1], in float32, to which the package casts.
        label_N: the right answers.
        config: which ball.

    Raises:
        UserError: if the package is missing, the images are no batch of float32 images, or there are fewer than four
            classes, where targeted DLR is not defined.
    """
    package = _package()
    if image_N3HW.ndim != 4 or image_N3HW.dtype != torch.float32 or not len(image_N3HW):
        raise UserError(
            f"AutoAttack is for batches of images (N, 3, H, W) in float32, not for {tuple(image_N3HW.shape)} in "
            f"{image_N3HW.dtype}; attack others with PGD and restarts."
        )

    def in_single(image: Tensor) -> Tensor:
        # Under autocast answers come in half precision, in which the square attack breaks off.
        return logits_of(image).float()

    with torch.no_grad():
        classes = in_single(image_N3HW[:1]).shape[1]
    require_classes(classes)
    device = image_N3HW.device
    with _alone(device), _heard() as warnings:
        attack = package.AutoAttack(
            in_single, norm=_NORMS[config.norm], eps=config.eps, version="standard", seed=config.seed, device=device
        )
        attack.attacks_to_run = list(config.parts)
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
        attack.square.n_queries = config.queries
        found, answer_N = attack.run_standard_evaluation(image_N3HW, label_N, batch_size=config.batch_size)
    return AutoAttacked(found, answer_N != label_N, tuple(warnings))


_NORMS = {"linf": "Linf", "l2": "L2"}


def require_classes(classes: int) -> None:
    """Refuse a network with fewer classes than targeted DLR is defined for.

    Raises:
        UserError: see above.
    """
    if classes < 4:
        raise UserError(f"AutoAttack needs four classes, and the network has {classes}; use PGD with restarts instead.")


def require_autoattack() -> str:
    """Return the version of the package.

    Raises:
        UserError: it is missing.
    """
    _package()
    return version("pyautoattack")


def _package() -> Any:
    try:
        import pyautoattack
    except ImportError as error:
        raise UserError(
            "AutoAttack needs the package pyautoattack, which is not installed; pip install 'advbn-gen[autoattack]'."
        ) from error
    return pyautoattack


@contextmanager
def _alone(device: torch.device) -> Iterator[None]:
    """Put back what the package changes for the whole process: seeds, and the trace function of debuggers."""
    trace = sys.gettrace()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        sys.settrace(trace)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect the warnings that the package logs, instead of printing them; each once, in order."""
    said: dict[str, None] = {}

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said[record.getMessage()] = None

    logger, ear, warnings = logging.getLogger("auto-attack"), Ear(logging.WARNING), list[str]()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(ear)
    try:
        yield warnings
    finally:
        warnings += said
        logger.removeHandler(ear)
        logger.propagate = propagate
