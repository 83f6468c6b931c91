"""The architecture of a network, with or without ABNN, as JSON values for a file, and building it from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from abnn.layer import AdaptiveBatchNorm, LayerConfig
from abnn.network import ABNN
from abnn.stages import shapes_of, shrink_stem, stages_of, tapped
from basics.errors import UserError
from networks.classifiers import Classifier, build_network
from networks.normalise import Normalise
from networks.uninitialised import Uninitialised
from training.evaluation import EVALUATION_BATCH

ATTACK_BATCH = 250
"""Images that `abnn attack` shows a network at a time unless another --batch-size is given. A network whose statistics
are those of the whole batch (`--statistics batch`) is scored on as many after each epoch: there the batch is a part of
the result."""


@dataclass(frozen=True, kw_only=True)
class SubstitutePlan:
    """The frozen network beside the target."""

    arch: str
    """torchvision name of the substitute."""
    classes: int
    """Number of classes it was trained on; its last layer is left out."""
    width: float = 1.0
    """Scale of its channels."""
    taps: tuple[str, ...] = ()
    """Modules whose outputs feed the layers; empty takes its blocks (see `abnn.stages`)."""
    sha256: str = ""
    """Checksum of the weights it came with."""


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """A target, and for ABNN its layers and the substitute."""

    arch: str
    """torchvision name of the target."""
    classes: int
    """Number of outputs."""
    image_size: int
    """Side of its images, in pixels."""
    width: float = 1.0
    """Scale of the target's channels."""
    blocks: tuple[str, ...] = ()
    """Modules of the target behind which layers are; empty takes its blocks."""
    layer: LayerConfig = field(default_factory=LayerConfig)
    """Variant of the layers."""
    substitute: SubstitutePlan | None = None
    """The network beside it; None for a target alone."""

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether the logits of an image depend on the images that are shown together with it."""
        return self.substitute is not None and self.layer.statistics == "batch"

    @property
    def evaluation_batch(self) -> int:
        """Images that the network is shown at a time when it is scored."""
        return ATTACK_BATCH if self.uses_batch_statistics else EVALUATION_BATCH

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        values: dict[str, Any] = asdict(self)
        if self.substitute is None:
            # A target alone has no layers behind its blocks.
            values["blocks"] = values["layer"] = None
        return values


def plan_from(stored: Mapping[str, Any]) -> NetworkPlan:
    """Return the plan that `NetworkPlan.as_json` gave these values for.

    Raises:
        KeyError, TypeError: these are no values of a plan.
    """
    values = dict(stored)
    substitute = values.pop("substitute")
    blocks, layer = values.pop("blocks"), values.pop("layer")
    if substitute is None:
        return NetworkPlan(**values)
    planned = SubstitutePlan(**{**substitute, "taps": tuple(substitute["taps"])})
    return NetworkPlan(**values, blocks=tuple(blocks), layer=LayerConfig(**layer), substitute=planned)


def substitute_plan(model: Classifier, taps: tuple[str, ...] = ()) -> SubstitutePlan:
    """Return the plan of a trained classifier as a substitute.

    Raises:
        UserError: it is none of torchvision's networks.
    """
    if ":" in model.name:
        raise UserError(f"The substitute is {model.name}; only torchvision's networks can be substitutes.")
    return SubstitutePlan(
        arch=model.name, classes=model.classes, width=model.width, taps=taps, sha256=model.checksum
    )  # fmt: skip


def build(plan: NetworkPlan, substitute: nn.Module | None = None) -> nn.Module:
    """Build the network of a plan, images (N, 3, H, W) in [0, 1] -> logits (N, K), with fresh weights of the target.

    Args:
        plan: what it is made of.
        substitute: the trained network beside it, without normalisation; None builds it with fresh weights.

    Raises:
        UserError: parts of the plan do not exist, or do not fit each other.
    """
    target = build_network(plan.arch, plan.classes, plan.width)
    shrink_stem(target, plan.image_size)
    if plan.substitute is None:
        shapes_of(target, (), plan.image_size, f"target {plan.arch}")
        return nn.Sequential(Normalise(), target)
    planned = plan.substitute
    if substitute is None:
        substitute = build_network(planned.arch, planned.classes, planned.width)
    blocks = plan.blocks or stages_of(target, plan.arch)
    taps = planned.taps or stages_of(substitute, planned.arch)
    if len(blocks) != len(taps):
        raise UserError(
            f"The target {plan.arch} has {len(blocks)} blocks and the substitute {planned.arch} {len(taps)}; "
            "name as many modules of each with --blocks and --taps."
        )
    what = f"substitute {planned.arch}"
    shapes = zip(
        shapes_of(target, blocks, plan.image_size, f"target {plan.arch}"),
        shapes_of(substitute, taps, plan.image_size, what),
        strict=True,
    )
    layers = [AdaptiveBatchNorm(shape[0], substitute_shape, plan.layer) for shape, substitute_shape in shapes]
    return ABNN(target, blocks, tapped(substitute, taps, what), layers)


def rebuild(plan: NetworkPlan) -> nn.Module:
    """Build the network of a plan for weights that are loaded into it: torch's global generator is not moved."""
    with torch.random.fork_rng(devices=[]), Uninitialised():
        return build(plan)
