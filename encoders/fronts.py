"""Any network's front as an encoder: `NETWORK@MODULE`, with its own normalisation, up to the output of a module."""

from collections import OrderedDict
from functools import cache, partial

import torch
from torch import Tensor, fx, nn

from basics.errors import UserError
from encoders.registry import EncoderKind
from networks.checkpoints import StateDict
from networks.cuts import Cut, limits_of, split
from networks.specs import blank_model, first_line

SEPARATOR = "@"
_SIDES = (64, 96)
"""Sides of the images with which channels and reduction are found out."""


@cache
def front_kind(name: str) -> EncoderKind:
    """Return the encoder that a network's front is.

    Args:
        name: `NETWORK@MODULE`: torchvision's name or `timm:NAME`, and a module of it.

    Raises:
        UserError: there is no such network or module, nothing is left behind it, or it gives no square feature maps
            whose side divides the image's.
    """
    network, _, module = name.rpartition(SEPARATOR)
    normalise, front = _parts(network, module)
    channels, reduction = _measured(normalise, front, name)
    return EncoderKind(
        name=name,
        channels=channels,
        reduction=reduction,
        limits=limits_of(front),
        classifier=network,
        network=network,
        build=partial(_build, network, module),
        convert=partial(_convert, network, module),
    )


def _parts(network: str, module: str) -> tuple[nn.Module, fx.GraphModule]:
    normalise, whole = blank_model(network).eval()
    return normalise, split(whole, Cut(node=module))[0]


def _build(network: str, module: str, width: float) -> nn.Module:  # noqa: ARG001 (the front of a whole network)
    normalise, front = _parts(network, module)
    return nn.Sequential(OrderedDict(normalise=normalise, front=front))


def _convert(network: str, module: str, state: StateDict) -> tuple[StateDict, str]:
    """Return the front's part of the network's state dict.

    Raises:
        UserError: it is another network's.
    """
    names = _parts(network, module)[1].state_dict().keys()
    if not names <= state.keys():
        missing = min(names - state.keys())
        raise UserError(f"The encoder weights are not of the network {network} (no {missing}); give its own.")
    return {f"front.{name}": state[name] for name in names}, network


@torch.no_grad()
def _measured(normalise: nn.Module, front: nn.Module, name: str) -> tuple[int, int]:
    """Return channels and reduction of the features, found out with blank images."""
    try:
        found = [_shape(front(normalise(torch.zeros(1, 3, side, side)))) for side in _SIDES]
    except (AssertionError, RuntimeError, ValueError) as error:
        # Whatever a network raises that takes images of one size only.
        raise UserError(
            f"The encoder {name} does not take images of {_SIDES[0]} and of {_SIDES[1]} px ({first_line(error)}); give "
            "another network."
        ) from error
    reductions = {side // max(1, shape[-1]) for side, shape in zip(_SIDES, found, strict=True)}
    whole = all(
        len(shape) == 4 and shape[2] == shape[3] and side % shape[3] == 0
        for side, shape in zip(_SIDES, found, strict=True)
    )
    if not whole or len(reductions) != 1:
        raise UserError(
            f"The encoder {name} does not give one feature map for every channel, of a whole part of the image's side "
            f"(it gives {found[0] or 'several tensors'} for an image of {_SIDES[0]} px); name another module."
        )
    return found[0][1], reductions.pop()


def _shape(feat: object) -> tuple[int, ...]:
    return tuple(feat.shape) if isinstance(feat, Tensor) else (0,)
