"""From what a user asks for to a trained network of these experiments."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from abnn.benchmarks import Task, task_of
from abnn.checkpoint import COST_FILE, MODEL_FILE, cost_identity, read_cost
from abnn.cost import measure_cost, passes
from abnn.images import open_test, require_native
from abnn.layer import LayerConfig
from abnn.plan import NetworkPlan, build, rebuild, substitute_plan
from abnn.task import DEFENCES, DefenceTask
from attacks.pixels import PixelConfig
from basics.compute import choose_compute
from basics.errors import UserError
from basics.files import require_apart, write_json
from basics.progress import say
from networks.checkpoints import read_metadata
from networks.classifiers import PUBLISHED, Classifier, load_classifier
from networks.specs import load_model
from sources.opening import open_source
from training.config import TrainingConfig
from training.data import Variation, require_same_classes, training_images
from training.folder import is_first_process, require_free
from training.loop import train

CPU_BATCH = 32
"""Images of the steps whose cost is measured on a CPU, at most: whole batches would take minutes there."""
HELD_OUT_MOST = 1000
"""So many test images, evenly spread, are scored after each epoch."""


@dataclass(frozen=True, kw_only=True)
class DefenceRequest:
    """What was asked for."""

    task: str
    """One of `abnn.benchmarks.TASKS`."""
    defence: str
    """One of `abnn.task.DEFENCES`."""
    data: str
    """Address of what holds training and test images."""
    out: Path
    """Run folder."""
    substitute: str | None = None
    """SPEC of the network beside the target; None takes the published one."""
    arch: str | None = None
    """torchvision name of the target; None takes the task's."""
    width: float = 1.0
    """Scale of the target's channels."""
    layer: LayerConfig = field(default_factory=LayerConfig)
    """Variant of the layers."""
    blocks: tuple[str, ...] = ()
    """Modules of the target behind which layers stand; empty takes its blocks."""
    taps: tuple[str, ...] = ()
    """Modules of the substitute that feed them; empty takes its blocks."""
    attack: Mapping[str, Any] = field(default_factory=dict)
    """Fields of PixelConfig that differ from the task's, for adversarial training."""
    limit: int | None = None
    """Only so many training images, evenly spread."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TrainingConfig that differ from the task's."""


def fit_defence(request: DefenceRequest, *, overwrite: bool = False) -> tuple[Path, float]:
    """Train; return the weights file and its top-1 on (some of the) test images, unattacked.

    Raises:
        UserError: something that was asked for does not exist or does not fit.
        WorkError: the loss is no longer a number.
    """
    task = task_of(request.task)
    _require_sense(request)
    config = TrainingConfig(**{"image_size": task.image_size, **task.training, **request.training})
    choose_compute(config.device, config.precision)
    config.require_batches_for_batch_norm()
    require_apart(request.data, request.out)
    require_free(request.out, [request.out / COST_FILE])
    source = open_source(request.data, split="train")
    held_source = open_test(request.data)
    require_same_classes(source, held_source)
    resized = "image_size" in request.training
    if not resized:
        require_native(source, task.image_size, "give --image-size to have them resized")
    images, held_out = training_images(
        source, held_source, config, limit=request.limit, held_out_most=HELD_OUT_MOST,
        variation=Variation(shift=task.shift),
    )  # fmt: skip
    network, plan = _network(request, task, config, source.classes.count)
    pixels = task.ball(request.attack) if request.defence == "pgd-at" else None
    told = {
        "task": request.task, "defence": request.defence, "resized": resized, "seed": config.seed,
        "attack": asdict(pixels) if pixels else None, "records_sha256": source.digest(),
    }  # fmt: skip
    facts = {
        **told, "plan": plan.facts(), "source": source.address, "held_out": held_out.digest(),
        "images": len(images),
    }  # fmt: skip
    written = {**told, "classes": list(source.classes.names), "training": asdict(config), "images": len(images)}
    run = DefenceTask(network, plan, pixels=pixels, held_out=held_out, out=request.out, facts=written)
    train(run, images, config, request.out, facts, overwrite=overwrite)
    if is_first_process(config.devices):
        _tell_cost(request, plan, pixels, config)
    path = request.out / MODEL_FILE
    return path, float(read_metadata(path)["held_out_top1"])


def _require_sense(request: DefenceRequest) -> None:
    if request.defence not in DEFENCES:
        raise UserError(f"There is no defence {request.defence!r}; give one of {', '.join(DEFENCES)}.")
    beside = {"substitute": request.substitute, "blocks": request.blocks, "taps": request.taps}
    idle = [name for name, value in beside.items() if value] if request.defence != "abnn" else []
    if request.defence != "abnn" and request.layer != LayerConfig():
        idle.append("statistics or --encoder")
    if request.defence != "pgd-at" and request.attack:
        idle.append(next(iter(request.attack)).replace("_", "-"))
    if idle:
        raise UserError(f"The option --{idle[0]} changes nothing with --defence {request.defence}; leave it out.")


def _tell_cost(request: DefenceRequest, plan: NetworkPlan, pixels: PixelConfig | None, config: TrainingConfig) -> None:
    """Measure what a step costs, if that is not known of just this network."""
    path = request.out / COST_FILE
    of = cost_identity(request.defence, plan, asdict(pixels) if pixels else None)
    known = read_cost(request.out)
    if known is not None and known["of"] == of:
        return
    say("Measuring what a training step costs beside a plain one.")
    compute = choose_compute(config.device, config.precision)
    most = config.batch_size // config.devices
    cost = measure_cost(
        rebuild(plan), rebuild(replace(plan, substitute=None)), pixels=pixels,
        paper=passes(request.defence, pixels.steps if pixels else 0), of=of, image_size=plan.image_size,
        batch=most if compute.device.type == "cuda" else min(most, CPU_BATCH), compute=compute,
    )  # fmt: skip
    write_json(path, asdict(cost))


def _network(
    request: DefenceRequest, task: Task, config: TrainingConfig, classes: int
) -> tuple[nn.Module, NetworkPlan]:
    arch = request.arch or task.target
    plan = NetworkPlan(arch=arch, classes=classes, image_size=config.image_size, width=request.width)
    substitute = None
    if request.defence == "abnn":
        model = _substitute(request.substitute, task)
        beside = substitute_plan(model, request.taps)
        plan = replace(plan, blocks=request.blocks, layer=request.layer, substitute=beside)
        substitute = model.module[1]  # type: ignore[index]
    torch.manual_seed(config.seed)
    return build(plan, substitute), plan


def _substitute(spec: str | None, task: Task) -> Classifier:
    if spec is not None:
        return load_model(spec)
    try:
        return load_classifier(task.substitute, PUBLISHED)
    except UserError as error:
        raise UserError(
            f"The published weights of the substitute {task.substitute} cannot be had; give a file with --substitute "
            f"{task.substitute}=FILE, or a network of `advbn-gen abnn pretrain`."
        ) from error
