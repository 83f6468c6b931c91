"""The request for a fine-tuned classifier, and carrying it out."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from basics.compute import choose_compute
from basics.errors import UserError
from basics.files import require_apart
from downstream.exports import FILES
from downstream.task import FineTuningConfig, FineTuningTask
from downstream.testset import open_named
from networks.checkpoints import read_metadata
from networks.classifiers import Classifier, classifier_metadata, naming_advice
from networks.heads import with_fresh_head
from networks.specs import load_model
from sources.base import Source
from sources.classes import require_agreeing
from sources.fewer_classes import FewerClasses, occurring
from training.data import Mix, require_same_classes, training_images
from training.folder import is_first_process
from training.loop import train
from training.request import TrainingRequest, TrainingResult, open_if_address


@dataclass(frozen=True, kw_only=True)
class FineTuningRequest(TrainingRequest):
    """A classifier to be fine-tuned; `labels` are those of held-out images."""

    arch: str
    """Name of its architecture: torchvision's, or `timm:NAME`."""
    tuning: FineTuningConfig
    """Cut, method, attacks and augmentation."""
    init: str | None = None
    """SPEC of the weights to start from (see `networks.specs`); None takes the published ones."""
    classes: int | None = None
    """Number of classes of a fresh last layer: those that occur in the training images; None keeps the last layer."""
    width: float | None = None
    """Scale of its channels; None: what the weights have."""
    mix: str | None = None
    """Address of a second source to train on, such as shards of ImageNet-AdvBN."""
    mix_share: float = 0.5
    """Share of each batch that comes from it."""


def train_fine_tuning(request: FineTuningRequest, *, overwrite: bool = False) -> TrainingResult:
    """Fine-tune a classifier; return the file of each batch-norm set (`main`, `auxiliary`) and the top-1 through each.

    On several CUDA devices batch norm is synchronised between them, as in the published code.

    Args:
        request: what is trained, on what, how, and where to.
        overwrite: start anew and remove the files of an earlier run.

    Raises:
        UserError: a part of the request does not exist or does not fit, a step would have one image, there is nothing
            to tune, or the folder holds another run.
        WorkError: the loss is no longer a number.
    """
    config, tuning = request.training, request.tuning
    if tuning.micro_batch is not None and tuning.micro_batch >= config.batch_size:
        # It cuts no batch, so the training is the one without it.
        tuning = replace(tuning, micro_batch=None)
    start = _start(request)
    request.require_possible()
    require_apart(request.mix, request.out)
    source, held_source, mix = _opened(request, start)
    if request.classes is not None:
        start = with_fresh_head(start, source.classes, config.seed)
    for each in (source, held_source):
        _require_classes_of_classifier(start, each)
    require_same_classes(source, held_source)
    if start.class_map is None and source.classes.named:
        start = replace(start, class_map=source.classes)
    images, held_out = training_images(
        source, held_source, config, limit=request.limit, variation=tuning.variation,
        view=start.view.scaled(config.image_size), mix=mix,
    )  # fmt: skip
    config.require_batches_for_batch_norm()
    identity: dict[str, Any] = {
        "arch": start.name,
        "width": start.width,
        "start_sha256": start.checksum,
        **start.colours_given(),
        **tuning.identity(),
        "source": images.source.address,
        "records_sha256": images.source.digest(),
        "held_out": held_out.digest(),
        "mix_share": None if mix is None else mix.share,
        "images": len(images),
    }
    task = FineTuningTask(start, tuning, held_out, request.out, {"training": asdict(config), **identity})
    if math.isfinite(task.network.limits[1]):
        # Earlier versions did not hold features to it.
        identity["highest_feature"] = task.network.limits[1]
    if config.devices > 1 and choose_compute(config.device, config.precision).device.type == "cuda":
        # torch has no synchronised batch norm for the CPU.
        task.synchronise_batch_norm()
    train(task, images, config, request.out, identity, held_out=held_out, overwrite=overwrite)
    files = {which: request.out / name for which, name in FILES.items()}
    if not is_first_process(config.devices):
        return TrainingResult(files=files)
    run = classifier_metadata(read_metadata(next(iter(files.values()))))["facts"]
    names = [f"held_out_top1_{which}" for which in FILES]
    return TrainingResult(files=files, metadata={name: run[name] for name in names})


def _start(request: FineTuningRequest) -> Classifier:
    """Load the classifier to start from.

    Raises:
        UserError: it is of another architecture or width than the request says.
    """
    start = load_model(request.init or request.arch, "--init", notice=is_first_process(request.training.devices))
    if start.name != request.arch:
        raise UserError(
            f"--init {request.init} is a {start.name}, not a {request.arch}; give the --arch that it is."
        )  # fmt: skip
    if request.width is not None and request.width != start.width:
        raise UserError(
            f"The weights to start from have width {start.width:g}, not {request.width:g}; leave --width out."
        )
    return start


def _opened(request: FineTuningRequest, start: Classifier) -> tuple[Source, Source | None, Mix | None]:
    """Open the training images, those to measure on, and a second source; of the network's classes alone.

    These are a fresh head's, or, of a network of some of ImageNet's classes, those that it names by their wnids.

    Raises:
        UserError: one cannot be read, or other classes occur than a fresh head is to have.
    """
    source = open_if_address(request.source, split="train")
    # Only held-out images may lie flat: the labels of training images are their folders.
    held = None if request.held_out is None else open_if_address(request.held_out, labels=request.labels, split="val")
    second = None if request.mix is None else open_named("mix", request.mix, split="train").source
    if request.classes is not None:
        names = occurring(source)
        if request.classes != len(names):
            raise UserError(
                f"--classes is {request.classes}, but images of {len(names)} classes occur in {source.address}; give "
                "their number."
            )
    elif source.classes.imagenet and set(start.outputs.names) < set(source.classes.names):
        names = list(start.outputs.names)
    else:
        names = []
    if names:
        source = FewerClasses(source, names)
        held, second = (None if each is None else FewerClasses(each, names) for each in (held, second))
    return source, held, None if second is None else Mix(source=second, share=request.mix_share)


def _require_classes_of_classifier(start: Classifier, source: Source | None) -> None:
    """Refuse a source of other classes than the classifier's.

    Raises:
        UserError: see above.
    """
    if source is not None:
        require_agreeing(
            f"the {start.name} to start from", start.outputs, source.address, source.classes,
            "give --init with a classifier of these classes, or --classes for a fresh last layer"
            + naming_advice(start.outputs, source.classes),
        )  # fmt: skip
