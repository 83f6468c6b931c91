"""Narrow versions of published networks, for small machines and small data."""

from torch import nn

from basics.errors import UserError


def scaled(channels: int, width: float) -> int:
    """Return `channels` scaled by `width`, at least 1."""
    return max(1, round(channels * width))


def require_width(width: float) -> None:
    """Refuse a width outside (0, 1].

    Raises:
        UserError: see above.
    """
    if not 0 < width <= 1:
        raise UserError(f"The width is {width}; give a factor above 0 and at most 1.")


def narrow(network: nn.Module, width: float) -> nn.Module:
    """Replace every convolution, batch norm and linear layer by one with `width` times the channels.

    What the network takes in (3 colours) and gives out (its last linear layer's classes) stays. Works for networks
    whose channel counts only add and concatenate what their layers give (torchvision's ResNets, VGGs, DenseNets; 3D
    ResNets). The new layers are initialised from torch's global generator in the order of `network.modules()`. A
    network on the meta device, which saves the memory of its own weights, becomes one on the present device.
    """
    require_width(width)
    if width == 1:
        return network
    linears = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    last = linears[-1] if linears else None
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            replacement = _narrow_layer(layer, width, keep_outputs=layer is last)
            if replacement is not None:
                setattr(parent, name, replacement)
    return network


def _narrow_layer(layer: nn.Module, width: float, *, keep_outputs: bool) -> nn.Module | None:
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        colours = layer.in_channels == 3
        inputs = 3 if colours else scaled(layer.in_channels, width)
        outputs = scaled(layer.out_channels, width)
        convolution = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Conv3d
        new: nn.Conv2d | nn.Conv3d = convolution(
            inputs,
            outputs,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            groups=_groups(layer.groups, width, inputs, outputs),
            bias=layer.bias is not None,
        )
        # The initialisation of torchvision's own networks; torch's default trains worse without batch norm.
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        if new.bias is not None:
            nn.init.zeros_(new.bias)
        return new
    if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
        batch_norm = nn.BatchNorm2d if isinstance(layer, nn.BatchNorm2d) else nn.BatchNorm3d
        norm = batch_norm(scaled(layer.num_features, width), eps=layer.eps, momentum=layer.momentum)
        if not layer.weight.is_meta:
            # Fresh batch norm is constant: 1, or 0 where a network starts its residual branches closed.
            nn.init.constant_(norm.weight, layer.weight[0].item())
        return norm
    if isinstance(layer, nn.Linear):
        if keep_outputs:
            return nn.Linear(scaled(layer.in_features, width), layer.out_features)
        hidden = nn.Linear(scaled(layer.in_features, width), scaled(layer.out_features, width))
        nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
        nn.init.zeros_(hidden.bias)
        return hidden
    return None


def _groups(groups: int, width: float, inputs: int, outputs: int) -> int:
    """Return how many groups a narrow convolution has: the scaled number, or the next smaller one that divides."""
    if groups == 1:
        return 1
    most = scaled(groups, width)
    return max(count for count in range(1, most + 1) if inputs % count == outputs % count == 0)
