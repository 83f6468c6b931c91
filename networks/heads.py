"""Outputs for other classes: a fresh last layer, and some of ImageNet-1k's classes among all of them.

Legend: N images, C classes.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from basics.errors import UserError
from networks.checkpoints import weights_checksum
from networks.classifiers import Classifier, head_of
from sources.base import ClassMap
from sources.classes import imagenet_index, imagenet_map


def with_fresh_head(classifier: Classifier, classes: ClassMap, seed: int) -> Classifier:
    """Return a classifier of other classes: its last layer with weights is a fresh one, all others are kept.

    Args:
        classifier: the classifier; it is not changed.
        classes: the new classes.
        seed: of the layer's weights, which are initialised as torch does.

    Raises:
        UserError: it has more than one such layer.
    """
    module = copy.deepcopy(classifier.module)
    network: nn.Module = module[1]  # type: ignore[index]
    path = head_of(network)
    layer = network.get_submodule(path)
    others = [
        name
        for name, each in network.named_modules()
        if name != path and isinstance(each, nn.Linear | nn.Conv2d) and each.weight.shape[0] == classifier.classes
    ]
    if others:
        raise UserError(
            f"The network {classifier.name} gives its classes in more than one layer ({path}, {', '.join(others)}), so "
            "--classes cannot replace them; give another network."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.set_submodule(path, _of_classes(layer, classes.count))
    for name in ("num_classes", "n_classes"):
        if isinstance(getattr(network, name, None), int):
            setattr(network, name, classes.count)
    return replace(
        classifier,
        module=module.eval().requires_grad_(False),
        classes=classes.count,
        class_map=classes,
        checksum=weights_checksum(network.state_dict()),
    )


def _of_classes(layer: nn.Module, count: int) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        size, bias = (layer.kernel_size, layer.stride, layer.padding), layer.bias is not None
        return nn.Conv2d(layer.in_channels, count, *size, bias=bias)  # type: ignore[arg-type]
    assert isinstance(layer, nn.Linear)  # noqa: S101 (`head_of` finds no others)
    return nn.Linear(layer.in_features, count, bias=layer.bias is not None)


def imagenet_outputs(classes: ClassMap) -> list[int] | None:
    """Return the ImageNet-1k index of each of some of its classes, called by their wnids; None for other classes."""
    index = imagenet_index()
    if len(classes.names) >= len(index) or not all(name in index for name in classes.names):
        return None
    return [index[name] for name in classes.names]


def among_imagenet(logits_NC: Tensor, outputs_C: Tensor) -> Tensor:
    """Return logits of all of ImageNet-1k's classes: those of the classes that a network lacks are minus infinity.

    Args:
        logits_NC: logits of some classes.
        outputs_C: ImageNet-1k index of each.
    """
    whole = logits_NC.new_full((len(logits_NC), imagenet_map().count), -math.inf)
    return whole.index_copy(1, outputs_C, logits_NC)


class _AmongImageNet(nn.Module):
    """`among_imagenet` as the last module of a network."""

    def __init__(self, outputs: Sequence[int]) -> None:
        super().__init__()
        self.outputs_C: Tensor
        self.register_buffer("outputs_C", torch.tensor(outputs), persistent=False)

    def forward(self, logits_NC: Tensor) -> Tensor:
        return among_imagenet(logits_NC, self.outputs_C)


def with_all_of_imagenet(classifier: Classifier) -> Classifier:
    """Return a classifier of some of ImageNet-1k's classes, by their wnids, as one of all; another as it is."""
    outputs = None if classifier.class_map is None else imagenet_outputs(classifier.class_map)
    if outputs is None:
        return classifier
    module = nn.Sequential(classifier.module, _AmongImageNet(outputs)).eval()
    every = imagenet_map()
    return replace(classifier, module=module, classes=every.count, class_map=every, real_outputs=tuple(outputs))
