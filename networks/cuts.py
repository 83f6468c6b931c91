"""A network split in two behind a named module: a front that stays as it is, and a head that learns.

Both parts keep the names of the network's modules, so their state dicts are parts of the network's own.
"""

import copy
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from basics.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A module behind which the head begins, and how AdvBN is set up there (paper, section 3 and appendix A)."""

    node: str
    """Name of the module whose output is cut."""
    left_out: str | None = None
    """Batch norm right behind the cut that the published code leaves out."""


Limits = tuple[float, float]
"""Least and greatest value that features can have."""
UNLIMITED: Limits = (-math.inf, math.inf)
RECTIFIED: Limits = (0.0, math.inf)
"""Of features out of a ReLU."""

_RESNET = {
    "conv2": Cut(node="layer1"),
    "conv3": Cut(node="layer2"),
    "conv4": Cut(node="layer3"),
}
CUTS: dict[str, dict[str, Cut]] = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), _RESNET),
    "densenet121": {"transition1": Cut(node="features.transition1", left_out="features.denseblock2.denselayer1.norm1")},
    "efficientnet_b0": {"features2": Cut(node="features.2")},
}
"""Network -> name of a cut -> the cut; the first of each network is the published one."""


def cut_of(arch: str, name: str | None = None, *, keep_norm: bool = False) -> Cut:
    """Return a network's cut: the published one, one of the table by its name, or any module's by its own name.

    Args:
        arch: network, by its name in the table.
        name: of the cut; None takes the published one.
        keep_norm: leave no batch norm out, also where the published code does.

    Raises:
        UserError: the table has no such network and no name was given.
    """
    known = CUTS.get(arch, {})
    if name is None:
        if not known:
            raise UserError(
                f"No cut is known for {arch}; name a module of it with --cut, or give one of {', '.join(CUTS)}."
            )
        name = next(iter(known))
    cut = known.get(name) or Cut(node=name)
    if keep_norm and cut.left_out is None:
        raise UserError(f"Behind the cut {name} of {arch} no batch norm is left out; leave --keep-norm out.")
    return replace(cut, left_out=None) if keep_norm else cut


def limits_of(front: fx.GraphModule) -> Limits:
    """Return the limits of a front's features: those of a ReLU or ReLU6 if they come out of one.

    Perturbed features are held to them: at 0 as in the published code, and at most 6 behind a ReLU6.
    """
    last = next(node for node in reversed(front.graph.nodes) if node.op != "output")
    return _limits_of(last, front)


_LIMITING = {nn.ReLU: RECTIFIED, nn.ReLU6: (0.0, 6.0)}
_KEEPING_LIMITS = (
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Dropout2d, nn.Identity,
)  # fmt: skip
_LIMITING_CALLS = {F.relu: RECTIFIED, torch.relu: RECTIFIED, F.relu6: (0.0, 6.0)}
_LIMIT_KEEPING_CALLS = {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.dropout, torch.cat}


def _limits_of(node: fx.Node, front: fx.GraphModule) -> Limits:
    """Return the limits of what a node gives, directly or through layers that keep them."""
    if node.op == "call_module":
        # timm's batch norms hold their activation, as the last thing that they do.
        layer = [*front.get_submodule(str(node.target)).modules()][-1]
        for kind, limits in _LIMITING.items():
            if isinstance(layer, kind):
                return limits
        keeping = isinstance(layer, _KEEPING_LIMITS)
    else:
        if node.target in _LIMITING_CALLS:
            return _LIMITING_CALLS[node.target]
        keeping = node.target in _LIMIT_KEEPING_CALLS
    before = [_limits_of(each, front) for each in node.all_input_nodes] if keeping else []
    return (min(low for low, _ in before), max(high for _, high in before)) if before else UNLIMITED


_SIDE = 224
"""Side of the image, in pixels, with which it is found out which modules give feature maps."""


class _Tracer(fx.Tracer):
    """Looks into modules, but not into those that do something else in training than in evaluation."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        innermost = next(module.children(), None) is None
        return innermost or isinstance(module, _BatchNorm) or super().is_leaf_module(module, module_qualified_name)


def split(network: nn.Module, cut: Cut) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return front and head of a network; together they are the network.

    Raises:
        UserError: there is no such module (the existing ones are listed), data flows around it, it has more than one
            output, or nothing is left behind it.
    """
    graph = _traced(network)
    inside = _nodes_in(graph, cut.node)
    if not inside:
        known = _with_feature_maps(network, graph)
        offered = f"give one of {', '.join(known)}" if known else "give another network"
        raise UserError(f"The network has no module {cut.node!r} to cut at; {offered}.")
    front = fx.GraphModule(network, _front(graph, inside[-1]))
    head = fx.GraphModule(network, _head(graph, inside, cut.node))
    if cut.left_out is not None:
        head.set_submodule(cut.left_out, nn.Identity())
    return front, head


def _traced(network: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError, AttributeError, RuntimeError, ValueError, AssertionError) as error:
        # What a network may do with a placeholder instead of an image ends in any of these.
        raise UserError(
            f"The network {type(network).__name__} decides by its input what to do, so it cannot be cut; give another."
        ) from error


def _nodes_in(graph: fx.Graph, name: str) -> list[fx.Node]:
    """Return the operations in the module of this name."""
    return [node for node in graph.nodes if name in node.meta.get("nn_module_stack", {})]


def _with_feature_maps(network: nn.Module, graph: fx.Graph) -> list[str]:
    """Return the modules whose output is a feature map, down to the second level, so that the list stays short."""
    paths = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    upper = list(dict.fromkeys(".".join(path.split(".")[:2]) for path in paths))
    maps = _feature_maps(network, graph)
    return [name for name in upper if _nodes_in(graph, name)[-1] in maps]


def _feature_maps(network: nn.Module, graph: fx.Graph) -> set[fx.Node]:
    """Return the operations that make of an image (N, C, H, W) with more than one position; no values are computed.

    Where the network does not take an image of the usual size, nothing behind that is known.
    """
    shapes = _Shapes(fx.GraphModule(copy.deepcopy(network).to("meta").eval(), graph))
    with torch.no_grad(), suppress(AssertionError, RuntimeError, TypeError, ValueError):
        shapes.run(torch.zeros(1, 3, _SIDE, _SIDE, device="meta"))
    return shapes.maps


class _Shapes(fx.Interpreter):
    """Passes an image through a network, and notes which operations give a square feature map."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.maps = set[fx.Node]()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and result.ndim == 4 and result.shape[2] == result.shape[3] > 1:
            self.maps.add(n)
        return result


def _front(graph: fx.Graph, last: fx.Node) -> fx.Graph:
    """Return the graph from the image to the cut."""
    front = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        copies[node] = front.node_copy(node, copies.__getitem__)
        if node is last:
            break
    front.output(copies[last])
    return front


def _head(graph: fx.Graph, inside: Sequence[fx.Node], name: str) -> fx.Graph:
    """Return the graph from the cut, behind the operations of a module, to the end.

    Raises:
        UserError: it needs something from before the cut, or is empty.
    """
    head, last = fx.Graph(), inside[-1]
    copies = {last: head.placeholder("feat")}

    def copied(node: fx.Node) -> fx.Node:
        if node in inside and node not in copies:
            raise UserError(f"The module {name!r} has more than one output ({node.name}, {last.name}); give another.")
        if node not in copies:
            raise UserError(f"Something flows around the module {name!r} ({node.name}); give another.")
        return copies[node]

    behind = list(graph.nodes)[list(graph.nodes).index(last) + 1 :]
    if all(node.op == "output" for node in behind):
        raise UserError(f"Nothing is left of the network behind the module {name!r}; give an earlier one.")
    for node in behind:
        copies[node] = head.node_copy(node, copied)
    return head
