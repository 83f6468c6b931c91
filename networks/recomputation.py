"""Activation checkpointing: residual blocks whose activations are computed again in the backward pass, and not kept.

Saves two thirds of what 3D ResNeXt-101 keeps of a clip, for one more forward pass. Results are the same (Chen et al.
2016): batch norm takes the same statistics of the batch again, and updates its running ones in the first pass only.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from basics.errors import UserError
from networks.video import RESIDUAL_BLOCKS


def recompute_activations(network: nn.Module) -> None:
    """Have the activations inside a network's residual blocks computed again instead of kept; its weights stay.

    Raises:
        UserError: it has no blocks of a network of clips.
    """
    blocks = [module for module in network.modules() if isinstance(module, RESIDUAL_BLOCKS)]
    if not blocks:
        raise UserError("Activations are computed again in networks of clips only; leave --checkpoint-activations out.")
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)  # type: ignore[method-assign]


def _recomputed(block: nn.Module, forward: Callable[[Tensor], Tensor], feature: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(feature)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _running_statistics_kept(block)

    # Blocks draw no random numbers, so that the generators' states need not be kept.
    output: Tensor = checkpoint(forward, feature, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return output


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Let batch norm in training mode use the batch's statistics, and leave its running ones and its counter alone."""
    layers = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        # Running statistics are moved by a share of 0; without them, other tensors would be kept than in the first
        # pass, which torch refuses.
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, counter) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, counter
