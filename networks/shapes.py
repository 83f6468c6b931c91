"""Passes through networks in which shapes are computed and no values: real ones take seconds for a clip."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from basics.errors import UserError


def pass_shapes(network: nn.Module, shape: Sequence[int]) -> None:
    """Pass an input of a shape through a network, for its hooks and for what it raises; no weight or buffer changes."""
    tensors = {name: value.to("meta") for name, value in (*network.named_parameters(), *network.named_buffers())}
    functional_call(network, tensors, (torch.zeros(*shape, device="meta", dtype=like_weights(network).dtype),))


def like_weights(network: nn.Module) -> Tensor:
    """Return an empty tensor of the device and data type of a network's weights; torch's defaults if it has none."""
    weights = (weight for weight in network.parameters() if weight.is_floating_point())
    return torch.empty(0) if (first := next(weights, None)) is None else first.new_empty(0)


def require_batch_norm(network: nn.Module, batch: int, size: Sequence[int]) -> None:
    """Refuse batches of clips of which batch norm sees one value a channel somewhere; one clip may have enough.

    Args:
        network: the network; it is in training mode afterwards.
        batch: clips a step on each device.
        size: (T, H, W) of a clip.

    Raises:
        UserError: see above, or clips of this size do not fit the network.
    """
    described = f"{batch} {'clip' if batch == 1 else 'clips'} of {size[0]} frames of {size[-1]} px"
    try:
        with torch.no_grad():
            pass_shapes(network.train(), (batch, 3, *size))
    except ValueError as error:
        raise UserError(
            f"Batch norm cannot learn from {described}: it needs two values of each channel; give a larger "
            "--batch-size, --image-size or --frames."
        ) from error
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"The network cannot be shown {described} ({error}); give another --image-size or --frames."
        ) from error
