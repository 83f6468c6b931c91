"""The request for a classifier trained from scratch, and carrying it out."""

from dataclasses import asdict, dataclass

import torch

from basics.errors import UserError
from networks.checkpoints import read_metadata
from networks.classifiers import classifier_metadata
from networks.recomputation import recompute_activations
from networks.shapes import require_batch_norm
from networks.specs import fresh_network, require_named
from networks.task import ClassifierConfig, ClassifierTask
from networks.uninitialised import Uninitialised
from sources.base import Source
from training.clips import training_clips
from training.data import TrainingImages, Variation, require_same_classes, training_images
from training.folder import is_first_process, require_own_so_far
from training.loop import train
from training.request import TrainingRequest, TrainingResult, open_if_address


@dataclass(frozen=True, kw_only=True)
class ClassifierRequest(TrainingRequest):
    """A classifier to be trained from scratch; `labels` are those of held-out images."""

    classifier: ClassifierConfig
    """The network to be trained, and its options."""
    variation: Variation
    """How training images are varied; clips are not."""


def train_classifier(request: ClassifierRequest, *, overwrite: bool = False) -> TrainingResult:
    """Train a classifier; return its weights file (`classifier`) and its `held_out_top1`.

    Args:
        request: what is trained, on what, how, and where to.
        overwrite: start anew and remove the files of an earlier run.

    Raises:
        UserError: a part of the request does not exist or does not fit, or the folder holds another run.
        WorkError: the loss is no longer a number.
    """
    config, clips = request.training, request.clips
    require_named(request.classifier.arch, clips=clips is not None, option="--arch")
    request.require_possible()
    if clips is None:
        config.require_batches_for_batch_norm()
    source = open_if_address(request.source, split="train", clips=clips, undivided=True)
    held_source = None
    if request.held_out is not None:
        held_source = open_if_address(request.held_out, labels=request.labels, split="val", clips=clips)
    require_same_classes(source, held_source)
    _require_trainable(request, source.classes.count)
    identity = {
        **request.classifier.identity(), "source": source.address, "records_sha256": source.digest(),
        **({"smallest_crop": request.variation.smallest} if clips is None else {"frames": clips.frames}),
    }  # fmt: skip
    if clips is not None and not overwrite:
        # Decoding all clips may take long.
        require_own_so_far(request.out, {"training": asdict(config), **identity}, unknown=("held_out", "images"))
    images, held_out = _data(request, source, held_source)
    identity |= {"images": len(images), "held_out": held_out.digest()}
    torch.manual_seed(config.seed)
    task = ClassifierTask(request.classifier, source.classes, held_out, request.out)
    if clips is not None and clips.checkpoint_activations:
        recompute_activations(task.network)
    train(task, images, config, request.out, identity, held_out=held_out, overwrite=overwrite)
    (path,) = task.outputs
    if not is_first_process(config.devices):
        return TrainingResult(files={"classifier": path})
    top1 = float(classifier_metadata(read_metadata(path))["top1"])
    return TrainingResult(files={"classifier": path}, metadata={"held_out_top1": top1})


def _data(
    request: ClassifierRequest, source: Source, held_source: Source | None
) -> tuple[TrainingImages, TrainingImages]:
    """Return the samples to train on, and those that are scored after each epoch."""
    config, clips = request.training, request.clips
    if clips is None:
        return training_images(source, held_source, config, limit=request.limit, variation=request.variation)
    return training_clips(source, held_source, config, frames=clips.frames, limit=request.limit, cache=clips.cache)


def _require_trainable(request: ClassifierRequest, classes: int) -> None:
    """Refuse a network that cannot be trained by plain cross-entropy on images, or clips, of this size.

    Raises:
        UserError: see above.
    """
    classifier, config, clips = request.classifier, request.training, request.clips
    arch, side = classifier.arch, config.image_size
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        with Uninitialised():
            network = fresh_network(arch, classes, classifier.width, **classifier.options)
        if clips is not None:
            require_batch_norm(network, config.batch_size // config.devices, (clips.frames, side, side))
            return
        try:
            network.train()(torch.zeros(2, 3, side, side))
        except (RuntimeError, ValueError, AssertionError) as error:
            # What networks raise for a size that does not fit them.
            raise UserError(
                f"A {arch} cannot be shown images of {side} px ({error}); give another --image-size."
            ) from error
