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


class TwinBatchNorm(nn.Module):
    """Two batch norms in the place of one; which one is in use is the network's state, see `using`."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.main, self.auxiliary = norm, copy.deepcopy(norm)
        self.used = MAIN

    def forward(self, feat_NCHW: Tensor) -> Tensor:
        """Normalise with the set in use."""
        normalised: Tensor = (self.main if self.used == MAIN else self.auxiliary)(feat_NCHW)
        return normalised


def add_auxiliary(network: nn.Module) -> None:
    """Give every batch norm of a network an auxiliary twin, initialised from it.

    Raises:
        UserError: the network has no batch norm.
    """
    norms = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, _BatchNorm)]
    if not norms:
        raise UserError("There is no batch norm behind the cut, so AdvBN has nothing to keep apart; cut earlier.")
    for name, norm in norms:
        network.set_submodule(name, TwinBatchNorm(norm))


def _twins(network: nn.Module) -> Iterator[tuple[str, TwinBatchNorm]]:
    for name, layer in network.named_modules():
        if isinstance(layer, TwinBatchNorm):
            yield name, layer


@contextmanager
def using(network: nn.Module, which: str) -> Iterator[None]:
    """Let every twin of a network use its `main` or its `auxiliary` set inside the block.

    Raises:
        ValueError: there is no such set.
    """
    if which not in SETS:
        raise ValueError(f"no batch-norm set is called {which!r}")
    before = [(twin, twin.used) for _, twin in _twins(network)]
    try:
        for twin, _ in before:
            twin.used = which
        yield
    finally:
        for twin, used in before:
            twin.used = used


def freeze(network: nn.Module, which: str) -> None:
    """Let the affine weights of one set learn no more."""
    for _, twin in _twins(network):
        twin.get_submodule(which).requires_grad_(False)


def state_with(network: nn.Module, which: str) -> StateDict:
    """Return a state dict under the names that the network had before it got twins, with one of the two sets."""
    state = dict(network.state_dict())
    for name, _ in _twins(network):
        for own in [key for key in state if key.startswith(f"{name}.")]:
            value, (kind, _, rest) = state.pop(own), own.removeprefix(f"{name}.").partition(".")
            if kind == which:
                state[f"{name}.{rest}"] = value
    return state


def with_twin_names(network: nn.Module, main: StateDict, auxiliary: StateDict) -> StateDict:
    """Return two plain state dicts as one for a network with twins."""
    state = dict(main)
    for name, twin in _twins(network):
        for rest in twin.main.state_dict():
            state[f"{name}.main.{rest}"] = state.pop(f"{name}.{rest}")
            state[f"{name}.auxiliary.{rest}"] = auxiliary[f"{name}.{rest}"]
    return state
