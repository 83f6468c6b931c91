"""From what a user asks for to a fine-tuned classifier: images, labels, run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basics.compute import choose_compute
from basics.errors import UserError
from basics.files import require_apart
from downstream.exports import FILES
from downstream.task import PUBLISHED_TRAINING, FineTuning, fine_tune
from downstream.testset import open_named
from networks.checkpoints import read_metadata
from networks.classifiers import facts_of
from sources.base import Source
from sources.opening import open_source
from training.config import TrainingConfig
from training.data import Mix, require_same_classes, training_images
from training.folder import is_first_process


@dataclass(frozen=True, kw_only=True)
class FineTuningRequest:
    """What a fine-tuning was asked for."""

    tuning: FineTuning
    """What, from where on, how."""
    source: str | Source
    """Training images: an address, or an open source."""
    out: Path
    """Run folder."""
    held_out: str | Source | None = None
    """Images to score after each epoch; None keeps some of the training images back."""
    labels: Path | None = None
    """Label list or devkit of held-out images in a flat ILSVRC2012 folder."""
    limit: int | None = None
    """Only so many training images, evenly spread."""
    mix: str | None = None
    """Address of a second source to train on, such as shards of ImageNet-AdvBN."""
    mix_share: float = 0.5
    """Share of each batch that comes from it."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TrainingConfig that differ from PUBLISHED_TRAINING."""


def fit(request: FineTuningRequest, *, overwrite: bool = False) -> tuple[dict[str, Path], dict[str, float]]:
    """Fine-tune; return the file of each batch-norm set, and (in the first process) the held-out top-1 through each.

    Raises:
        UserError: something that was asked for does not exist or does not fit.
        WorkError: the loss is no longer a number.
    """
    config = TrainingConfig(**{**PUBLISHED_TRAINING, **request.training})
    choose_compute(config.device, config.precision)
    for place in (request.source, request.held_out, request.mix):
        require_apart(place if isinstance(place, str) else None, request.out)
    source = _fitting(request, request.source, "train")
    held_source = None if request.held_out is None else _fitting(request, request.held_out, "val")
    require_same_classes(source, held_source)
    mix = None
    if request.mix is not None:
        mix = Mix(source=open_named("mix", request.mix, split="train").source, share=request.mix_share)
    images, held_out = training_images(
        source, held_source, config, limit=request.limit, variation=request.tuning.variation,
        view=request.tuning.start.view.scaled(config.image_size), mix=mix,
    )  # fmt: skip
    facts = {
        "source": images.source.address,
        "records_sha256": images.source.digest(),
        "held_out": held_out.digest(),
        "mix_share": None if mix is None else mix.share,
    }
    files = fine_tune(
        request.tuning, images, held_out=held_out, config=config, out=request.out, facts=facts, overwrite=overwrite
    )
    if not is_first_process(config.devices):
        return files, {}
    told = facts_of(read_metadata(next(iter(files.values()))))["facts"]
    return files, {f"held_out_top1_{which}": told[f"held_out_top1_{which}"] for which in FILES}


def _fitting(request: FineTuningRequest, place: str | Source, split: str) -> Source:
    """Open images whose labels are the classifier's classes.

    Raises:
        UserError: they are not.
    """
    # Only held-out images may lie flat: the labels of training images are their folders.
    labels = request.labels if split == "val" else None
    source = place if isinstance(place, Source) else open_source(place, labels=labels, split=split)
    start = request.tuning.start
    if source.classes.count != start.classes:
        raise UserError(
            f"The labels of {source.address} number {source.classes.count} classes, but the {start.name} to start "
            f"from has {start.classes}; give --init with a classifier of these classes."
        )
    return source
