"""Scores on held-out images after an epoch: one loop, one batch size, for every trainer."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from basics.compute import Compute
from training.data import TrainingImages

EVALUATION_BATCH = 64
"""Images at a time. Networks are in evaluation mode, so results do not depend on it (but see `abnn.plan`)."""
CLIP_BATCH = 8
"""Clips at a time: the published networks keep half a gibibyte of activations for each."""

Scores = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""(images (N, 3, H, W) in [0, 1], labels (N,)) -> named scores of each image, (N,)."""


def batched(images: TrainingImages, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all images in order, as batches of 8-bit images (N, 3, H, W) and labels (N,)."""
    for start in range(0, len(images), size):
        samples = [images[0, index] for index in range(start, min(start + size, len(images)))]
        yield torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


@torch.no_grad()
def held_out_scores(
    module: nn.Module, scores: Scores, images: TrainingImages, compute: Compute, batch_size: int = EVALUATION_BATCH
) -> dict[str, float]:
    """Return the mean of each score over held-out images, with `module` put into evaluation mode.

    Args:
        module: what the scores are computed with.
        scores: scores of each image of a batch.
        images: held-out images, shown in their order.
        compute: device and precision.
        batch_size: images at a time.
    """
    module.eval()
    found: dict[str, list[Tensor]] = {}
    for image, label in batched(images, batch_size):
        image_N3HW = image.to(compute.device, compute.dtype) / 255
        for name, score_N in scores(image_N3HW, label.to(compute.device)).items():
            # Doubles are made on the CPU: not every device has them.
            found.setdefault(name, []).append(score_N.cpu().double())
    return {name: float(torch.cat(parts).mean()) for name, parts in found.items()}


def correct(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """Return 1 for each image whose label has the largest logit, and 0 for the others (N,)."""
    return (logits_NK.argmax(1) == label_N).float()
