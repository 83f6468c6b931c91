"""The request for a classifier trained from scratch, and carrying it out."""

from dataclasses import dataclass

import torch

from basics.errors import UserError
from networks.checkpoints import read_metadata
from networks.classifiers import build_network, classifier_metadata, require_known
from networks.task import ClassifierConfig, ClassifierTask
from networks.uninitialised import Uninitialised
from training.data import Variation, require_same_classes, training_images
from training.folder import is_first_process
from training.loop import train
from training.request import TrainingRequest, TrainingResult, opened


@dataclass(frozen=True, kw_only=True)
class ClassifierRequest(TrainingRequest):
    """A classifier to be trained from scratch; `labels` are those of held-out images."""

    classifier: ClassifierConfig
    """The network to be trained, and its options."""
    variation: Variation
    """How training images are varied."""


def train_classifier(request: ClassifierRequest, *, overwrite: bool = False) -> TrainingResult:
    """Train a classifier; return its weights file (`classifier`) and its `held_out_top1`.

    Args:
        request: what is trained, on what, how, and where to.
        overwrite: start anew and remove the files of an earlier run.

    Raises:
        UserError: a part of the request does not exist or does not fit, or the folder holds another run.
        WorkError: the loss is no longer a number.
    """
    config = request.training
    require_known(request.classifier.arch)
    request.require_possible()
    config.require_batches_for_batch_norm()
    source = opened(request.source, split="train")
    held_source = None
    if request.held_out is not None:
        held_source = opened(request.held_out, labels=request.labels, split="val")
    require_same_classes(source, held_source)
    _require_trainable(request.classifier, source.classes.count, config.image_size)
    images, held_out = training_images(
        source, held_source, config, limit=request.limit, variation=request.variation
    )  # fmt: skip
    identity = {
        **request.classifier.identity(), "source": images.source.address, "records_sha256": images.source.digest(),
        "images": len(images), "held_out": held_out.digest(), "smallest_crop": request.variation.smallest,
    }  # fmt: skip
    torch.manual_seed(config.seed)
    task = ClassifierTask(request.classifier, source.classes, held_out, request.out)
    train(task, images, config, request.out, identity, held_out=held_out, overwrite=overwrite)
    (path,) = task.outputs
    if not is_first_process(config.devices):
        return TrainingResult(files={"classifier": path})
    top1 = float(classifier_metadata(read_metadata(path))["top1"])
    return TrainingResult(files={"classifier": path}, metadata={"held_out_top1": top1})


def _require_trainable(classifier: ClassifierConfig, classes: int, side: int) -> None:
    """Refuse a network that cannot be trained by plain cross-entropy on images of this size.

    Raises:
        UserError: see above.
    """
    arch = classifier.arch
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        with Uninitialised():
            network = build_network(arch, classes, classifier.width, **classifier.options)
        try:
            network.train()(torch.zeros(2, 3, side, side))
        except (RuntimeError, ValueError, AssertionError) as error:
            # What networks raise for a size that does not fit them.
            raise UserError(
                f"A {arch} cannot be shown images of {side} px ({error}); give another --image-size."
            ) from error
