"""Auxiliary batch norm: a second set of statistics and affine weights that only adversarial features pass through.

Paper section 3: clean and adversarial features have different statistics, so one set for both would fit neither.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from basics.errors import UserError
from networks.checkpoints import StateDict

MAIN, AUXILIARY = "main", "auxiliary"
SETS = (MAIN, AUXILIARY)


class DualBatchNorm(nn.Module):
    """Main and auxiliary batch norm in one layer; which one is used is a state of the layer, see `using`."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.main, self.auxiliary = norm, copy.deepcopy(norm)
        self.used = MAIN

    def forward(self, feat_NCHW: Tensor) -> Tensor:
        """Normalise with the set in use."""
        normalised: Tensor = (self.main if self.used == MAIN else self.auxiliary)(feat_NCHW)
        return normalised


def add_auxiliary(network: nn.Module) -> None:
    """Replace every batch norm of a network by a dual one, whose auxiliary set is a copy of the main set.

    Raises:
        UserError: the network has no batch norm.
    """
    norms = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, _BatchNorm)]
    if not norms:
        raise UserError("There is no batch norm behind the cut, so AdvBN has nothing to keep apart; cut earlier.")
    for name, norm in norms:
        network.set_submodule(name, DualBatchNorm(norm))


def _dual_norms(network: nn.Module) -> Iterator[tuple[str, DualBatchNorm]]:
    for name, layer in network.named_modules():
        if isinstance(layer, DualBatchNorm):
            yield name, layer


@contextmanager
def using(network: nn.Module, which: str) -> Iterator[None]:
    """Let every dual batch norm of a network use its `main` or its `auxiliary` set inside the block.

    Raises:
        ValueError: there is no such set.
    """
    if which not in SETS:
        raise ValueError(f"no batch-norm set is called {which!r}")
    before = [(norm, norm.used) for _, norm in _dual_norms(network)]
    try:
        for norm, _ in before:
            norm.used = which
        yield
    finally:
        for norm, used in before:
            norm.used = used


def freeze(network: nn.Module, which: str) -> None:
    """Exclude the affine weights of one set from learning."""
    for _, norm in _dual_norms(network):
        norm.get_submodule(which).requires_grad_(False)


def state_with(network: nn.Module, which: str) -> StateDict:
    """Return a state dict with one of the two sets, under the names of the network without dual batch norm."""
    state = dict(network.state_dict())
    for name, _ in _dual_norms(network):
        for path in [path for path in state if path.startswith(f"{name}.")]:
            value, (norm_set, _, key) = state.pop(path), path.removeprefix(f"{name}.").partition(".")
            if norm_set == which:
                state[f"{name}.{key}"] = value
    return state
