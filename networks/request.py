"""From what a user asks for to a classifier trained from scratch: images, labels, run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from basics.compute import choose_compute
from basics.errors import UserError
from basics.files import require_apart
from networks.checkpoints import read_metadata
from networks.classifiers import build_network, facts_of, require_known
from networks.task import fit_classifier
from sources.opening import open_source
from training.config import TrainingConfig
from training.data import Variation, require_same_classes, training_images


@dataclass(frozen=True, kw_only=True)
class ClassifierRequest:
    """What was asked for."""

    arch: str
    """torchvision name."""
    source: str
    """Address of the training images."""
    out: Path
    """Run folder."""
    held_out: str | None = None
    """Images to score after each epoch; None keeps some of the training images back."""
    labels: Path | None = None
    """Label list or devkit of held-out images in a flat ILSVRC2012 folder."""
    width: float = 1.0
    """Scale of the channels."""
    limit: int | None = None
    """Only so many training images, evenly spread."""
    smallest_crop: float = Variation.smallest
    """Smallest share of an image's area that a random crop covers."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TrainingConfig."""


def fit_from_scratch(request: ClassifierRequest, *, overwrite: bool = False) -> tuple[Path, float]:
    """Train; return the weights file and the held-out top-1.

    Raises:
        UserError: something that was asked for does not exist or does not fit.
        WorkError: the loss is no longer a number.
    """
    require_known(request.arch)
    config = TrainingConfig(**request.training)
    choose_compute(config.device, config.precision)
    config.require_batches_for_batch_norm()
    for place in (request.source, request.held_out):
        require_apart(place, request.out)
    source = open_source(request.source, split="train")
    held_source = None
    if request.held_out is not None:
        held_source = open_source(request.held_out, labels=request.labels, split="val")
    require_same_classes(source, held_source)
    _try_out(request.arch, request.width, source.classes.count, config.image_size)
    variation = Variation(crops=True, smallest=request.smallest_crop)
    images, held_out = training_images(source, held_source, config, limit=request.limit, variation=variation)
    facts = {
        "source": images.source.address, "records_sha256": images.source.digest(), "images": len(images),
        "held_out": held_out.digest(), "smallest_crop": variation.smallest,
    }  # fmt: skip
    path = fit_classifier(
        request.arch, request.width, images, held_out=held_out, config=config, out=request.out, options={}, facts=facts,
        overwrite=overwrite,
    )  # fmt: skip
    return path, float(facts_of(read_metadata(path))["top1"])


def _try_out(arch: str, width: float, classes: int, side: int) -> None:
    """Refuse a network that cannot be trained by plain cross-entropy on images of this size.

    Raises:
        UserError: see above.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = build_network(arch, classes, width)
        try:
            network.train()(torch.zeros(2, 3, side, side))
        except (RuntimeError, ValueError, AssertionError) as error:
            # What networks do with a size that is not theirs.
            raise UserError(
                f"A {arch} cannot be shown images of {side} px ({error}); give another --image-size."
            ) from error
