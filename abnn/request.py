"""The request for a network with a defence, and carrying it out."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from abnn.benchmarks import Benchmark
from abnn.checkpoint import COST_FILE, cost_identity, read_cost
from abnn.cost import measure_cost, passes
from abnn.images import require_native
from abnn.layer import LayerConfig
from abnn.network import ABNN
from abnn.plan import NetworkPlan, build, rebuild, substitute_plan, unusual_colours
from abnn.task import ADVERSARIAL, DEFENCES, DefenceLoss, DefenceTask
from attacks.micro_batches import require_micro_batch
from attacks.pixels import PixelConfig
from basics.compute import choose_compute
from basics.errors import UserError
from basics.files import write_json
from basics.memory import is_out_of_memory
from basics.options import refuse_unused_options
from basics.progress import say
from networks.checkpoints import load_into, read_metadata
from networks.classifiers import PUBLISHED, Classifier, head_of, load_classifier, require_colours, require_known
from networks.recomputation import recompute_activations
from networks.shapes import require_batch_norm
from networks.specs import load_model
from sources.base import ClassMap, Source
from sources.opening import open_held_out
from training.clips import training_clips
from training.data import TrainingImages, Variation, require_same_classes, training_images
from training.folder import is_first_process, require_free, require_own_so_far
from training.loop import train
from training.request import TrainingRequest, TrainingResult, open_if_address

CPU_BATCH = 32
"""Images of the steps whose cost is measured on a CPU, at most: whole batches would take minutes there."""
CPU_BATCH_OF_CLIPS = 2
"""The same of clips, of which one has as many values as 40 images of its size."""
_SMALLEST_BATCH = 2
"""Samples of the steps whose cost is measured, at least: batch norm may need two."""
HELD_OUT_LIMIT = 1000
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
    """Name of the target; None takes the benchmark's."""
    init: str | None = None
    """SPEC of the weights that the target starts from; None draws fresh ones."""
    colours: str | None = None
    """How the target has the colours of clips prepared; None as `init` does, or as is usual for it."""
    substitute_colours: str | None = None
    """How the substitute has them prepared; None as its file says, or as is usual for it."""
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
    micro_batch: int | None = None
    """Most samples that this attack changes at a time, to save memory; None takes a batch as a whole."""

    @property
    def resized(self) -> bool:
        """Whether its images or clips may come in other sizes; clips are always resized, as published."""
        return self.resize or self.clips is not None

    @property
    def pixels(self) -> PixelConfig | None:
        """The attack under which the network learns; None without adversarial training."""
        return (self.attack or self.benchmark.pixels) if self.defence in ADVERSARIAL else None


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
    _require_known(request)
    _refuse_unused(request)
    request.require_possible()
    if request.clips is None:
        config.require_batches_for_batch_norm()
    require_free(request.out, [request.out / COST_FILE])
    source, held_source = _sources(request)
    substitute = _substitute(request) if request.defence == "abnn" else None
    initial = _initial(request)
    network, plan = _network(request, source.classes, initial, substitute)
    identity: dict[str, Any] = {
        "task": benchmark.name, "defence": request.defence, "resized": request.resized, "seed": config.seed,
        "attack": asdict(pixels) if pixels else None, "records_sha256": source.digest(),
        **({} if initial is None else {"init": initial.checksum}),
    }  # fmt: skip
    settings = {**identity, "plan": plan.as_json(), "source": source.address}
    if request.clips is not None and not overwrite:
        # Decoding all clips may take long.
        require_own_so_far(request.out, {"training": asdict(config), **settings}, unknown=("held_out", "images"))
    images, held_out = _data(request, source, held_source)
    settings |= {"held_out": held_out.digest(), "images": len(images)}
    metadata = {**identity, "classes": list(source.classes.names), "training": asdict(config), "images": len(images)}
    trained = DefenceLoss(network, pixels, request.micro_batch)
    task = DefenceTask(trained, plan, held_out, request.out, metadata)
    train(task, images, config, request.out, settings, held_out=held_out, overwrite=overwrite)
    (path,) = task.outputs
    if not is_first_process(config.devices):
        return TrainingResult(files={"model": path})
    _write_cost(request, plan, network)
    top1 = float(read_metadata(path)["held_out_top1"])
    return TrainingResult(files={"model": path}, metadata={"held_out_top1": top1})


def _sources(request: DefenceRequest) -> tuple[Source, Source]:
    """Open the training and the test samples.

    Raises:
        UserError: they cannot be read, have other classes, or are images of another size.
    """
    source = open_if_address(request.source, split="train", clips=request.clips)
    if request.held_out is not None:
        held_source = open_if_address(request.held_out, labels=request.labels, split="test", clips=request.clips)
    elif request.clips is not None:
        held_source = open_if_address(source.address, split="test", clips=request.clips)
    else:
        held_source = open_held_out(source.address)
    require_same_classes(source, held_source)
    if not request.resized:
        require_native(source, request.training.image_size, "give --image-size to have them resized")
    return source, held_source


def _data(request: DefenceRequest, source: Source, held_source: Source) -> tuple[TrainingImages, TrainingImages]:
    """Return the samples to train on, and those that are scored after each epoch."""
    config, clips = request.training, request.clips
    if clips is not None:
        return training_clips(
            source, held_source, config, frames=clips.frames, limit=request.limit, held_out_limit=HELD_OUT_LIMIT,
            cache=clips.cache,
        )  # fmt: skip
    return training_images(
        source, held_source, config, limit=request.limit, held_out_limit=HELD_OUT_LIMIT,
        variation=Variation(translation=request.benchmark.translation),
    )  # fmt: skip


def start_from(initial: Classifier, network: nn.Module, plan: NetworkPlan, classes: ClassMap) -> None:
    """Load weights into the target; its last layer stays fresh, with a notice, unless they are of these classes.

    Args:
        initial: a network of the target's architecture and width.
        network: network of a plan, with fresh weights.
        plan: what it is made of.
        classes: classes of the data.

    Raises:
        UserError: they do not fit the target.
    """
    target = network.target if isinstance(network, ABNN) else network[1]  # type: ignore[index]
    fresh = {name: value for name, value in target.state_dict().items() if ".denoise." in name}
    given: dict[str, Tensor] = initial.module[1].state_dict()  # type: ignore[index]
    kept, named = initial.classes == classes.count, initial.class_map is not None and initial.class_map.named
    if kept and named:
        kept = initial.class_map == classes
    if not kept:
        head = head_of(target)
        fresh |= {name: value for name, value in target.state_dict().items() if name.startswith(f"{head}.")}
        say(
            f"The weights of --init are of {'other' if named else initial.classes} classes; the target's last layer is "
            f"a fresh one of {classes.count} classes."
        )
    elif not named:
        say(
            f"The weights of --init are of as many classes as the data ({classes.count}) and do not name them; its "
            "last layer is kept, as of the same classes in the same order."
        )
    load_into(target, {**given, **fresh}, f"the target {plan.arch}")


def _require_known(request: DefenceRequest) -> None:
    """Refuse an unknown defence, and a target that is unknown or takes images for clips, or the other way round.

    Raises:
        UserError: see above.
    """
    if request.defence not in DEFENCES:
        raise UserError(f"There is no defence {request.defence!r}; give one of {', '.join(DEFENCES)}.")
    if request.arch is not None:
        require_known(request.arch, clips=request.clips is not None, option="--arch")


def _refuse_unused(request: DefenceRequest) -> None:
    """Refuse options that have no effect on the defence.

    Raises:
        UserError: see above.
    """
    unused = []
    if request.defence != "abnn":
        of_substitute = {
            "substitute": request.substitute, "substitute_normalisation": request.substitute_colours,
            "blocks": request.blocks, "taps": request.taps,
        }  # fmt: skip
        unused += [name for name, value in of_substitute.items() if value]
        if request.layer != LayerConfig():
            unused.append("statistics or --encoder")
    if request.defence not in ADVERSARIAL:
        if request.attack is not None:
            unused.append(_changed(request.attack, request.benchmark.pixels))
        if request.micro_batch is not None:
            unused.append("micro_batch")
    refuse_unused_options(unused, f"with --defence {request.defence}")
    require_micro_batch(request.micro_batch)
    if request.clips is None:
        _refuse_what_clips_have(request)


def _refuse_what_clips_have(request: DefenceRequest) -> None:
    """Refuse what networks of images do not have.

    Raises:
        UserError: see above.
    """
    of_clips = {"normalisation": request.colours, "substitute_normalisation": request.substitute_colours}
    unused = [name for name, value in of_clips.items() if value is not None]
    if request.training.decay_every != request.benchmark.training.decay_every:
        # Their learning rate follows a cosine.
        unused.append("decay_every")
    refuse_unused_options(unused, "with a --task of images")
    if request.defence == "oudefend":
        raise UserError("The defence oudefend is one of networks of clips; give a --task with clips (ucf101).")


def _changed(attack: PixelConfig, published: PixelConfig) -> str:
    """Return the option that makes an attack another one than the benchmark's; that of the radius, if none does."""
    names = [each.name for each in fields(PixelConfig)]
    different = [name for name in names if getattr(attack, name) != getattr(published, name)]
    return (different or ["eps"])[0]


def _write_cost(request: DefenceRequest, plan: NetworkPlan, network: nn.Module) -> None:
    """Measure what a step costs, if that is not known of just this network."""
    path, config, pixels = request.out / COST_FILE, request.training, request.pixels
    of = cost_identity(request.defence, plan, asdict(pixels) if pixels else None, grouped=_is_grouped(network))
    known = read_cost(request.out)
    if known is not None and known["of"] == of:
        return
    say("Measuring what a training step costs beside a plain one.")
    compute = choose_compute(config.device, config.precision)
    most, on_cpu = config.batch_size // config.devices, CPU_BATCH if plan.frames is None else CPU_BATCH_OF_CLIPS
    batch = most if compute.device.type == "cuda" else min(most, on_cpu)
    while True:
        try:
            cost = measure_cost(
                rebuild(plan), rebuild(replace(plan, substitute=None, denoise=False)), pixels=pixels,
                formula_passes=passes(request.defence, pixels.steps if pixels else 0), of=of, size=plan.size,
                batch=batch, compute=compute,
            )  # fmt: skip
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            write_json(path, asdict(cost))
            return
        # Beside the trained network, and without what saves memory in training. Tables state the batch.
        if batch < 2 * _SMALLEST_BATCH:
            say("There is too little memory to measure the cost of a training step; tables will not have it.")
            return
        batch //= 2


def _is_grouped(network: nn.Module) -> bool:
    """Whether a network has convolutions in groups, whose operations earlier versions counted too high."""
    return any(layer.groups > 1 for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d))


def _initial(request: DefenceRequest) -> Classifier | None:
    """Load the weights that the target starts from; None draws fresh ones.

    Raises:
        UserError: they are not there, or of another network than the target.
    """
    arch, option = request.arch or request.benchmark.target, "--init"
    if request.init is None:
        if request.clips is not None:
            say(
                "The target starts from fresh weights. The paper's starts from weights trained on Kinetics, which this "
                f"program cannot fetch; give a file with {option} {arch}=FILE."
            )
        return None
    first = is_first_process(request.training.devices)
    clips = request.clips is not None
    model = load_model(request.init, option, clips=clips, colours=request.colours, notice=first)
    _require_usual_colours(model, option)
    if model.name != arch:
        raise UserError(f"{option} {request.init} is a {model.name}, not a {arch}; give the --arch that it is.")
    if model.width != request.width:
        raise UserError(f"The weights of {option} have width {model.width:g}; give --width {model.width:g}.")
    return model


def _require_usual_colours(model: Classifier, option: str) -> None:
    """Refuse weights that go with other colours of images than are usual for their network: plans know no others.

    Raises:
        UserError: see above.
    """
    if model.given_colours is not None:
        raise UserError(
            f"The weights of {option} go with colours of their own ({model.given_colours.describe()}), which an ABNN "
            "does not prepare; give weights that were trained with the network's usual colours."
        )


def _network(
    request: DefenceRequest, classes: ClassMap, initial: Classifier | None, substitute: Classifier | None
) -> tuple[nn.Module, NetworkPlan]:
    """Return the network, its target fresh from the seed or with given weights, and what it is made of."""
    config, benchmark, clips = request.training, request.benchmark, request.clips
    arch = request.arch or benchmark.target
    colours = request.colours if initial is None else initial.colours
    require_colours(colours)
    plan = NetworkPlan(
        arch=arch, classes=classes.count, image_size=config.image_size, width=request.width,
        frames=None if clips is None else clips.frames, denoise=request.defence == "oudefend",
        colours=unusual_colours(arch, colours),
    )  # fmt: skip
    if substitute is not None:
        planned = substitute_plan(substitute, request.taps)
        plan = replace(plan, blocks=request.blocks, layer=request.layer, substitute=planned)
    torch.manual_seed(config.seed)
    network = build(plan, None if substitute is None else substitute.module[1])  # type: ignore[index]
    if initial is not None:
        start_from(initial, network, plan, classes)
    if clips is not None:
        require_batch_norm(network, config.batch_size // config.devices, plan.size)
        if clips.checkpoint_activations:
            recompute_activations(network)
    return network, plan


def _substitute(request: DefenceRequest) -> Classifier:
    spec, name, clips = request.substitute, request.benchmark.substitute, request.clips is not None
    if spec is not None:
        colours, first = request.substitute_colours, is_first_process(request.training.devices)
        substitute = load_model(spec, "--substitute", clips=clips, colours=colours, notice=first)
        _require_usual_colours(substitute, "--substitute")
        return substitute
    if clips:
        raise UserError(
            f"The weights of the substitute {name} cannot be fetched; give a file with --substitute {name}=FILE, "
            "torchvision's Kinetics weights with --substitute r3d_18, or a network of "
            f"`advbn-gen abnn pretrain --task {request.benchmark.name}`."
        )
    try:
        return load_classifier(name, PUBLISHED)
    except UserError as error:
        raise UserError(
            f"The published weights of the substitute {name} cannot be had; give a file with "
            f"--substitute {name}=FILE, or a network of `advbn-gen abnn pretrain`."
        ) from error
