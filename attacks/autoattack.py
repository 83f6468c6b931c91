"""AutoAttack (Croce & Hein 2020), by its authors' own code, which is an extra."""

from importlib.metadata import version
from typing import Any

from torch import Tensor, nn

from attacks.pixels import Norm
from basics.errors import UserError

PACKAGE = "pyautoattack"
_NORMS = {"linf": "Linf", "l2": "L2"}
_TARGETS = 9
"""Classes that the targeted attacks of the standard version aim at."""


def require_autoattack() -> str:
    """Return the version of the package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyautoattack  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"AutoAttack needs the package {PACKAGE}, which is not installed; pip install 'advbn-gen[autoattack]'."
        ) from error
    return version(PACKAGE)


def autoattack(  # noqa: PLR0913 (what, on what, how strong)
    network: nn.Module, image_N3HW: Tensor, label_N: Tensor, *, eps: float, norm: Norm, classes: int, seed: int
) -> Tensor:
    """Return images attacked by the standard version: APGD-CE, targeted APGD and FAB, Square.

    Args:
        network: images in [0, 1] -> logits, in evaluation mode.
        image_N3HW: images.
        label_N: what they show.
        eps: radius of the ball.
        norm: which ball.
        classes: number of logits.
        seed: of the attacks.

    Raises:
        UserError: the package is not installed.
    """
    require_autoattack()
    from pyautoattack import AutoAttack

    attack: Any = AutoAttack(network, device=image_N3HW.device, eps=eps, norm=_NORMS[norm], seed=seed)
    for part in (attack.apgd_targeted, attack.fab):
        part.n_target_classes = min(_TARGETS, classes - 1)
    attacked: Tensor = attack.run_standard_evaluation(image_N3HW, label_N, batch_size=len(image_N3HW))[0]
    return attacked
