"""The architecture of a network, with a defence or without, as JSON values for a file, and building it from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from abnn.beside import put_beside
from abnn.layer import LayerConfig
from abnn.network import ABNN
from abnn.oudefend import Denoise
from abnn.stages import shapes_of, shrink_stem, stages_of
from networks.classifiers import Classifier, build_network, normalise_for, require_known, takes_clips
from networks.specs import fresh_network, normalise_of, require_named
from networks.uninitialised import Uninitialised
from networks.video import own_colours
from training.evaluation import CLIP_BATCH, EVALUATION_BATCH

ATTACK_BATCH = 250
"""Images that `abnn attack` shows a network at a time unless another --batch-size is given. A network whose statistics
are those of the whole batch (`--statistics batch`) is scored on as many after each epoch: there the batch is a part of
the result. Clips are CLIP_BATCH at a time everywhere."""
DENOISED = "layer3"
"""Layer behind which OUDefend's block is."""


@dataclass(frozen=True, kw_only=True)
class SubstitutePlan:
    """The frozen network beside the target."""

    arch: str
    """Name of the substitute: torchvision's, `timm:NAME`, or one of `networks.video.CLIP_NETWORKS`."""
    classes: int
    """Number of classes it was trained on; its last layer is left out."""
    width: float = 1.0
    """Scale of its channels."""
    taps: tuple[str, ...] = ()
    """Modules whose outputs feed the layers; empty takes its blocks (see `abnn.stages`)."""
    sha256: str = ""
    """Checksum of the weights it came with."""
    colours: str | None = None
    """How it has the colours of clips prepared; None as is usual for it (`networks.video.own_colours`)."""


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """A target, and what a defence adds: for ABNN its layers and the substitute, for OUDefend its block."""

    arch: str
    """Name of the target, torchvision's or one of `networks.video.CLIP_NETWORKS`."""
    classes: int
    """Number of outputs."""
    image_size: int
    """Side of its images, or of the frames of its clips, in pixels."""
    width: float = 1.0
    """Scale of the target's channels."""
    blocks: tuple[str, ...] = ()
    """Modules of the target behind which layers are; empty takes its blocks."""
    layer: LayerConfig = field(default_factory=LayerConfig)
    """Variant of the layers."""
    substitute: SubstitutePlan | None = None
    """The network beside it; None for a target alone."""
    frames: int | None = None
    """Frames of its clips; None for a network of images."""
    denoise: bool = False
    """Whether OUDefend's block is behind layer3."""
    colours: str | None = None
    """How the target has the colours of clips prepared; None as is usual for it."""

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W) of its images, or (T, H, W) of its clips."""
        side = (self.image_size, self.image_size)
        return side if self.frames is None else (self.frames, *side)

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether the logits of an image depend on the images that are shown together with it."""
        return self.substitute is not None and self.layer.statistics == "batch"

    @property
    def evaluation_batch(self) -> int:
        """Images or clips that the network is shown at a time when it is scored."""
        if self.frames is not None:
            return CLIP_BATCH
        return ATTACK_BATCH if self.uses_batch_statistics else EVALUATION_BATCH

    @property
    def attack_batch(self) -> int:
        """Images or clips that `abnn attack` shows the network at a time, unless another --batch-size is given."""
        return ATTACK_BATCH if self.frames is None else CLIP_BATCH

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values; what only clips have is left out where it says nothing."""
        values: dict[str, Any] = asdict(self)
        if self.substitute is None:
            # A target alone has no layers behind its blocks.
            values["blocks"] = values["layer"] = None
        else:
            _leave_out(values["substitute"], _OF_CLIPS)
        _leave_out(values, _OF_CLIPS)
        return values


_OF_CLIPS = {"frames": None, "denoise": False, "colours": None}
"""Fields of plans that networks of images have at these values, and that their files do not mention."""


def _leave_out(values: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for name, value in defaults.items():
        if name in values and values[name] == value:
            del values[name]


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
    """Return the plan of a trained classifier as a substitute."""
    return SubstitutePlan(
        arch=model.name, classes=model.classes, width=model.width, taps=taps, sha256=model.checksum,
        colours=unusual_colours(model.name, model.colours),
    )  # fmt: skip


def unusual_colours(arch: str, colours: str | None) -> str | None:
    """Return how a network has the colours of clips prepared if that is not usual for it; else None, as in plans."""
    return None if not takes_clips(arch) or colours == own_colours(arch) else colours


def build(plan: NetworkPlan, substitute: nn.Module | None = None) -> nn.Module:
    """Build the network of a plan with fresh weights of the target.

    It takes images (N, 3, H, W), or clips (N, 3, T, H, W), in [0, 1], and gives logits (N, K).

    Args:
        plan: what it is made of.
        substitute: the trained network beside it, without normalisation; None builds it with fresh weights.

    Raises:
        UserError: parts of the plan do not exist, or do not fit each other.
    """
    require_known(plan.arch, clips=plan.frames is not None, option="--arch")
    target = build_network(plan.arch, plan.classes, plan.width)
    normalise = normalise_for(plan.arch, plan.colours)
    what = f"target {plan.arch}"
    if plan.frames is None:
        shrink_stem(target, plan.image_size)
    if plan.denoise:
        ((channels, *_),) = shapes_of(target, [DENOISED], plan.size, what)
        target.get_submodule(DENOISED).add_module("denoise", Denoise(channels))
    if plan.substitute is None:
        shapes_of(target, (), plan.size, what)
        return nn.Sequential(normalise, target)
    return _beside_substitute(plan, target, normalise, plan.substitute, substitute)


def _beside_substitute(
    plan: NetworkPlan, target: nn.Module, normalise: nn.Module, planned: SubstitutePlan, substitute: nn.Module | None
) -> ABNN:
    require_named(planned.arch, clips=plan.frames is not None, option="--substitute")
    if substitute is None:
        substitute = fresh_network(planned.arch, planned.classes, planned.width)
    blocks = plan.blocks or stages_of(target, plan.arch)
    taps = planned.taps or stages_of(substitute, planned.arch)
    return put_beside(
        target,
        substitute,
        blocks=blocks,
        taps=taps,
        size=plan.size,
        layer=plan.layer,
        normalise=normalise,
        normalise_substitute=normalise_of(planned.arch, substitute, planned.colours),
        names=(f"target {plan.arch}", f"substitute {planned.arch}"),
    )


def rebuild(plan: NetworkPlan) -> nn.Module:
    """Build the network of a plan for weights that are loaded into it: torch's global generator is not moved."""
    with torch.random.fork_rng(devices=[]), Uninitialised():
        return build(plan)
