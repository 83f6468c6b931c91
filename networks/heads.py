"""A fresh last layer for another number of classes."""

import copy
from dataclasses import replace

import torch
from torch import nn

from basics.errors import UserError
from networks.checkpoints import weights_checksum
from networks.classifiers import Classifier, head_of
from sources.base import ClassMap


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
