"""Accuracy of classifiers on any source of labelled images, shards included."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from basics.compute import Compute
from basics.errors import UserError
from networks.classifiers import Classifier
from networks.fitting import batched
from sources.base import Source
from training.data import TrainingImages

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy of one classifier on one data set."""

    model: str
    """Classifier's name."""
    data: str
    """Data set's name."""
    n: int
    """Images scored."""
    top1: float
    """Share of right first answers, 0..1."""


@torch.no_grad()
def score(
    classifiers: Sequence[Classifier], data: str, source: Source, image_size: int, compute: Compute
) -> list[Score]:
    """Score several classifiers in one pass over a source.

    Images are resized to `image_size` on the short side and centre-cropped, which leaves images of that size as they
    are.

    Raises:
        UserError: the source's labels do not fit a classifier.
        BrokenImageError: an image cannot be decoded.
    """
    for classifier in classifiers:
        if classifier.classes != source.classes.count:
            raise UserError(
                f"The classifier {classifier.name} has {classifier.classes} classes, but {source.address} has "
                f"{source.classes.count}; score a classifier trained on these labels."
            )
        classifier.module.to(compute.device, compute.dtype)
    images = TrainingImages(source, image_size, augment=False)
    right = [0] * len(classifiers)
    with compute.kernels(), compute.autocast():
        for image_N3HW, label_N in batched(images, _BATCH):
            pixels = image_N3HW.to(compute.device, compute.dtype) / 255
            for position, classifier in enumerate(classifiers):
                right[position] += int((classifier.module(pixels).argmax(1).cpu() == label_N).sum())
    return [
        Score(model=classifier.name, data=data, n=len(images), top1=count / len(images))
        for classifier, count in zip(classifiers, right, strict=True)
    ]
