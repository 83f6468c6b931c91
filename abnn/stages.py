"""The ends of networks' blocks, where substitutes are tapped and targets have adaptive layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import VGG, DenseNet, RegNet, ResNet
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.video import VideoResNet as TorchvisionVideoResNet

from basics.errors import UserError
from networks.shapes import like_weights, pass_shapes
from networks.video import RESIDUAL_BLOCKS, VideoResNet

_SMALL_IMAGE = 64
"""Images up to this side (in pixels) are shown to a stem that does not make them smaller."""


def stages_of(network: nn.Module, arch: str) -> tuple[str, ...]:
    """Return the modules at whose ends a network's blocks end, the stem first.

    Of a ResNet these are stem (with its pooling, if it has one) and four layers, of a VGG its five pooled blocks, of a
    network of timm those that it lists in its `feature_info`.

    Raises:
        UserError: they are not known for this kind of network.
    """
    if isinstance(network, ResNet | VideoResNet):
        return ("maxpool", "layer1", "layer2", "layer3", "layer4")
    if isinstance(network, TorchvisionVideoResNet):
        return ("stem", "layer1", "layer2", "layer3", "layer4")
    if isinstance(network, VGG):
        pools = [name for name, layer in network.features.named_children() if isinstance(layer, nn.MaxPool2d)]
        return tuple(f"features.{name}" for name in pools)
    if isinstance(network, DenseNet):
        return ("features.pool0", *(f"features.denseblock{number}" for number in (1, 2, 3, 4)))
    if isinstance(network, RegNet):
        return ("stem", *(f"trunk_output.{name}" for name, _ in network.trunk_output.named_children()))
    listed = tuple(str(each["module"]) for each in getattr(network, "feature_info", []))
    modules = dict(network.named_modules())
    if listed and all(name in modules for name in listed):
        return listed
    raise UserError(f"The blocks of a {arch} are not known; name its modules (--blocks, --taps).")


def shrink_stem(network: nn.Module, image_size: int) -> None:
    """Give a ResNet the stem of CIFAR's networks if images are small: a 3x3 convolution, and no pooling.

    Other networks are left as they are.
    """
    if image_size > _SMALL_IMAGE or not isinstance(network, ResNet):
        return
    old = network.conv1
    network.conv1 = nn.Conv2d(3, old.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def tapped(network: nn.Module, taps: Sequence[str], what: str) -> fx.GraphModule:
    """Return the part of a network up to its last tap: images or clips -> the outputs of the taps, in order.

    Blocks of networks of clips stay modules of their own, so that what is set on them holds here as well. So do layers,
    of which timm has some that look at the size of their input.

    Raises:
        UserError: it has no such module, cannot be traced, or its features are of another layout.
    """
    names = {tap: str(number) for number, tap in enumerate(taps)}
    if getattr(network, "output_fmt", "NCHW") != "NCHW":
        raise UserError(f"The {what} gives its features with their channels last; give another network.")
    try:
        extractor: fx.GraphModule = create_feature_extractor(
            network.eval(), names, tracer_kwargs={"leaf_modules": [*RESIDUAL_BLOCKS, *_layer_types(network)]}
        )
    except ValueError as error:
        raise UserError(f"The {what} has not all of the modules {', '.join(taps)}; check their names.") from error
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise UserError(f"The {what} decides by its input what to do, so it cannot be tapped; give another.") from error
    return extractor


def _layer_types(network: nn.Module) -> set[type[nn.Module]]:
    """Return the types of a network's innermost modules, and of its batch norms, in which timm has an activation."""
    outer = [each for each in network.modules() if any(each.children()) and not isinstance(each, _BatchNorm)]
    inner = {type(each) for each in network.modules()} - {type(each) for each in outer}
    # An empty Sequential is innermost, and the others are not.
    return {kind for kind in inner if not any(isinstance(each, kind) for each in outer)}


def shapes_of(network: nn.Module, blocks: Sequence[str], size: Sequence[int], what: str) -> list[tuple[int, ...]]:
    """Return the shapes (C, H, W), or (C, T, H, W), of what blocks give for one image, or clip.

    Args:
        network: the network.
        blocks: names of its modules.
        size: (H, W) of the image, or (T, H, W) of the clip.
        what: what a message calls the network.

    Raises:
        UserError: there is no such block, it does not give one feature once, or the image is too small or too large.
    """
    found: dict[str, list[Any]] = {block: [] for block in blocks}
    handles = []
    for block in blocks:
        try:
            module = network.get_submodule(block)
        except AttributeError as error:
            raise UserError(f"The {what} has no module {block!r}; check its name.") from error
        keep = found[block].append
        handles.append(module.register_forward_hook(lambda _module, _inputs, output, keep=keep: keep(output)))
    was_training = network.training
    try:
        with torch.no_grad():
            _show(network.eval(), size)
    except (RuntimeError, ValueError, AssertionError) as error:
        # What networks raise for a size that does not fit them.
        raise UserError(
            f"The {what} cannot be shown {_size_text(size)} ({error}); give another --image-size or network."
        ) from error
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    for block, outputs in found.items():
        if len(outputs) != 1 or not isinstance(outputs[0], Tensor) or outputs[0].ndim != 2 + len(size):
            raise UserError(f"The module {block!r} of the {what} does not give one feature map; name another.")
    return [tuple(outputs[0].shape[1:]) for outputs in found.values()]


def _size_text(size: Sequence[int]) -> str:
    """Return `images of 32 px`, or `clips of 40 frames of 112 px`."""
    return f"images of {size[-1]} px" if len(size) == 2 else f"clips of {size[0]} frames of {size[-1]} px"


def _show(network: nn.Module, size: Sequence[int]) -> None:
    if len(size) == 2:
        network(like_weights(network).new_zeros(1, 3, *size))
    else:
        pass_shapes(network, (1, 3, *size))
