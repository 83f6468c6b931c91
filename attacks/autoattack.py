"""AutoAttack (Croce & Hein 2020), run by its authors' package `pyautoattack`; needs the extra `autoattack`.

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

from attacks.pixels import Norm
from basics.errors import UserError

Part = Literal["apgd-ce", "apgd-t", "fab-t", "square"]


@dataclass(frozen=True, kw_only=True)
class AutoAttackConfig:
    """Settings of AutoAttack. Its attacks have no strength but the size of the ball; images are in [0, 1]."""

    eps: float = 8 / 255
    """Radius of the ball around each image; at most 1 for l-inf."""
    norm: Norm = "linf"
    """Norm of the ball."""
    parts: tuple[Part, ...] = get_args(Part)
    """Which of its four attacks are run; fewer are quicker, but not AutoAttack."""
    queries: int = 5000
    """Forward passes of the square attack; fewer are quicker, but not AutoAttack."""
    seed: int = 0
    """Seed of all its random starts."""
    batch_size: int = 250
    """Images in one forward pass."""

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
class AutoAttackResult:
    """Result of AutoAttack on a batch."""

    image_N3HW: Tensor
    """Images that fool the network; the clean ones where none was found, and where they are misclassified already."""
    fooled_N: Tensor
    """Whether the network's prediction for them is wrong."""
    warnings: tuple[str, ...]
    """The package's own warnings about the network, e.g. that gradients are zero, or that the square attack did better
    than those that follow gradients. They belong beside the result."""


def auto_attack(
    logits_of: Callable[[Tensor], Tensor], image_N3HW: Tensor, label_N: Tensor, config: AutoAttackConfig
) -> AutoAttackResult:
    """Run AutoAttack's standard version: APGD on cross-entropy and on targeted DLR, targeted FAB, square.

    The targeted attacks take the nine likeliest wrong classes, or all if there are fewer. Samples that were fooled are
    not attacked again, so each prediction must depend on its own sample alone. The state of torch's global generator is
    restored afterwards.

    Args:
        logits_of: image_N3HW -> logits_NK; closes over the network, in evaluation mode.
        image_N3HW: images in [0, 1], in float32, to which the package casts.
        label_N: true classes.
        config: ball, attacks and seed.

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

    def float32_logits(image: Tensor) -> Tensor:
        # Under autocast logits are in half precision, in which the square attack fails.
        return logits_of(image).float()

    with torch.no_grad():
        classes = float32_logits(image_N3HW[:1]).shape[1]
    require_classes(classes)
    device = image_N3HW.device
    with _process_state_restored(device), _captured_warnings() as warnings:
        attack = package.AutoAttack(
            float32_logits,
            norm=_NORMS[config.norm],
            eps=config.eps,
            version="standard",
            seed=config.seed,
            device=device,
        )
        attack.attacks_to_run = list(config.parts)
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
        attack.square.n_queries = config.queries
        found, prediction_N = attack.run_standard_evaluation(image_N3HW, label_N, batch_size=config.batch_size)
    return AutoAttackResult(found, prediction_N != label_N, tuple(warnings))


_NORMS = {"linf": "Linf", "l2": "L2"}


def require_classes(classes: int) -> None:
    """Check that a network has enough classes for targeted DLR.

    Raises:
        UserError: it has fewer than four.
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
def _process_state_restored(device: torch.device) -> Iterator[None]:
    """Restore what the package changes for the whole process: random states, and the trace function of debuggers."""
    trace = sys.gettrace()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        sys.settrace(trace)


@contextmanager
def _captured_warnings() -> Iterator[list[str]]:
    """Collect the warnings that the package logs, instead of printing them; each once, in order."""
    messages: dict[str, None] = {}

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages[record.getMessage()] = None

    logger, collector, warnings = logging.getLogger("auto-attack"), Collector(logging.WARNING), list[str]()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield warnings
    finally:
        warnings += messages
        logger.removeHandler(collector)
        logger.propagate = propagate
