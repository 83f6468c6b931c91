"""The request for a network with a defence, and carrying it out."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

from abnn.benchmarks import Benchmark
from abnn.checkpoint import COST_FILE, cost_identity, read_cost
from abnn.cost import measure_cost, passes
from abnn.images import open_test, require_native
from abnn.layer import LayerConfig
from abnn.plan import NetworkPlan, build, rebuild, substitute_plan
from abnn.task import DEFENCES, DefenceLoss, DefenceTask
from attacks.pixels import PixelConfig
from basics.compute import choose_compute
from basics.errors import UserError
from basics.files import write_json
from basics.options import refuse_unused_options
from basics.progress import say
from networks.checkpoints import read_metadata
from networks.classifiers import PUBLISHED, Classifier, load_classifier
from networks.specs import load_model
from training.data import Variation, require_same_classes, training_images
from training.folder import is_first_process, require_free
from training.loop import train
from training.request import TrainingRequest, TrainingResult, opened

CPU_BATCH = 32
"""Images of the steps whose cost is measured on a CPU, at most: whole batches would take minutes there."""
HELD_OUT_MOST = 1000
"""Most test images, evenly spread, that are scored after each epoch."""


@dataclass(frozen=True, kw_only=True)
class DefenceRequest(TrainingRequest):
    """A network to be trained with a defence; without `held_out`, the source holds the test images as well."""

    benchmark: Benchmark
    """The settings that hold where the request has none of its own."""
    defence: str
    """One of `abnn.task.DEFENCES`."""
    resize: bool = False
    """Whether images are resized to the training's image size; otherwise images of other sizes are refused."""
    substitute: str | None = None
    """SPEC of the network beside the target; None takes the benchmark's, with published weights."""
    arch: str | None = None
    """torchvision name of the target; None takes the benchmark's."""
    width: float = 1.0
    """Scale of the target's channels."""
    layer: LayerConfig = field(default_factory=LayerConfig)
    """Variant of the layers."""
    blocks: tuple[str, ...] = ()
    """Modules of the target behind which layers are; empty takes its blocks."""
    taps: tuple[str, ...] = ()
    """Modules of the substitute that feed them; empty takes its blocks."""
    attack: PixelConfig | None = None
    """The attack of adversarial training; None takes the benchmark's."""

    @property
    def pixels(self) -> PixelConfig | None:
        """The attack under which the network learns; None without adversarial training."""
        return (self.attack or self.benchmark.pixels) if self.defence == "pgd-at" else None


def train_defence(request: DefenceRequest, *, overwrite: bool = False) -> TrainingResult:
    """Train a network; return its weights file (`model`) and its `held_out_top1` on test images, unattacked.

    Args:
        request: what is trained, on what, how, and where to.
        overwrite: start anew and remove the files of an earlier run.

    Raises:
        UserError: a part of the request does not exist or does not fit, or the folder holds another run.
        WorkError: the loss is no longer a number.
    """
    config, benchmark, pixels = request.training, request.benchmark, request.pixels
    _refuse_unused(request)
    request.require_possible()
    config.require_batches_for_batch_norm()
    require_free(request.out, [request.out / COST_FILE])
    source = opened(request.source, split="train")
    if request.held_out is None:
        held_source = open_test(source.address)
    else:
        held_source = opened(request.held_out, labels=request.labels, split="test")
    require_same_classes(source, held_source)
    if not request.resize:
        require_native(source, config.image_size, "give --image-size to have them resized")
    images, held_out = training_images(
        source, held_source, config, limit=request.limit, held_out_most=HELD_OUT_MOST,
        variation=Variation(translation=benchmark.translation),
    )  # fmt: skip
    network, plan = _network(request, source.classes.count)
    identity: dict[str, Any] = {
        "task": benchmark.name, "defence": request.defence, "resized": request.resize, "seed": config.seed,
        "attack": asdict(pixels) if pixels else None, "records_sha256": source.digest(),
    }  # fmt: skip
    settings = {
        **identity, "plan": plan.as_json(), "source": source.address, "held_out": held_out.digest(),
        "images": len(images),
    }  # fmt: skip
    metadata = {**identity, "classes": list(source.classes.names), "training": asdict(config), "images": len(images)}
    task = DefenceTask(DefenceLoss(network, pixels), plan, held_out, request.out, metadata)
    train(task, images, config, request.out, settings, held_out=held_out, overwrite=overwrite)
    (path,) = task.outputs
    if not is_first_process(config.devices):
        return TrainingResult(files={"model": path})
    _write_cost(request, plan)
    top1 = float(read_metadata(path)["held_out_top1"])
    return TrainingResult(files={"model": path}, metadata={"held_out_top1": top1})


def _refuse_unused(request: DefenceRequest) -> None:
    """Refuse an unknown defence, and options that have no effect on the defence.

    Raises:
        UserError: see above.
    """
    if request.defence not in DEFENCES:
        raise UserError(f"There is no defence {request.defence!r}; give one of {', '.join(DEFENCES)}.")
    unused = []
    if request.defence != "abnn":
        of_substitute = {"substitute": request.substitute, "blocks": request.blocks, "taps": request.taps}
        unused += [name for name, value in of_substitute.items() if value]
        if request.layer != LayerConfig():
            unused.append("statistics or --encoder")
    if request.defence != "pgd-at" and request.attack is not None:
        unused.append(_changed(request.attack, request.benchmark.pixels))
    refuse_unused_options(unused, f"with --defence {request.defence}")


def _changed(attack: PixelConfig, published: PixelConfig) -> str:
    """Return the option that makes an attack another one than the benchmark's; that of the radius, if none does."""
    names = [each.name for each in fields(PixelConfig)]
    different = [name for name in names if getattr(attack, name) != getattr(published, name)]
    return (different or ["eps"])[0]


def _write_cost(request: DefenceRequest, plan: NetworkPlan) -> None:
    """Measure what a step costs, if that is not known of just this network."""
    path, config, pixels = request.out / COST_FILE, request.training, request.pixels
    of = cost_identity(request.defence, plan, asdict(pixels) if pixels else None)
    known = read_cost(request.out)
    if known is not None and known["of"] == of:
        return
    say("Measuring what a training step costs beside a plain one.")
    compute = choose_compute(config.device, config.precision)
    most = config.batch_size // config.devices
    cost = measure_cost(
        rebuild(plan), rebuild(replace(plan, substitute=None)), pixels=pixels,
        formula_passes=passes(request.defence, pixels.steps if pixels else 0), of=of, size=plan.size,
        batch=most if compute.device.type == "cuda" else min(most, CPU_BATCH), compute=compute,
    )  # fmt: skip
    write_json(path, asdict(cost))


def _network(request: DefenceRequest, classes: int) -> tuple[nn.Module, NetworkPlan]:
    """Return the network, its target fresh from the seed, and what it is made of."""
    config, benchmark = request.training, request.benchmark
    arch = request.arch or benchmark.target
    plan = NetworkPlan(arch=arch, classes=classes, image_size=config.image_size, width=request.width)
    substitute = None
    if request.defence == "abnn":
        model = _substitute(request.substitute, benchmark)
        planned = substitute_plan(model, request.taps)
        plan = replace(plan, blocks=request.blocks, layer=request.layer, substitute=planned)
        substitute = model.module[1]  # type: ignore[index]
    torch.manual_seed(config.seed)
    return build(plan, substitute), plan


def _substitute(spec: str | None, benchmark: Benchmark) -> Classifier:
    if spec is not None:
        return load_model(spec, "--substitute")
    try:
        return load_classifier(benchmark.substitute, PUBLISHED)
    except UserError as error:
        raise UserError(
            f"The published weights of the substitute {benchmark.substitute} cannot be had; give a file with "
            f"--substitute {benchmark.substitute}=FILE, or a network of `advbn-gen abnn pretrain`."
        ) from error
