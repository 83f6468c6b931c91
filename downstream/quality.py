"""How close reconstructions are to their originals: PSNR, SSIM and, on request, LPIPS."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from basics.compute import Compute
from basics.errors import UserError
from basics.progress import progress
from downstream.testset import TestSet
from sources.decode import load_image

_BATCH = 32
_PEAK = 1.0
HIGHEST_PSNR = 100.0
"""PSNR in dB of equal images in place of infinity, so that means stay finite."""


@torch.no_grad()
def quality(original: TestSet, reconstructed: TestSet, compute: Compute, *, lpips: bool = False) -> dict[str, Any]:
    """Compare each reconstruction with its original, prepared as the main job prepares it.

    Args:
        original: the images as they are.
        reconstructed: the same samples in the same order, from a data set that the main job wrote.
        compute: device.
        lpips: measure also the learned distance, with AlexNet (its weights are downloaded once).

    Returns:
        Measure -> float64 value of each sample: `psnr` in dB (at most HIGHEST_PSNR), `ssim`, `lpips`.

    Raises:
        UserError: LPIPS's weights cannot be obtained.
        BrokenImageError: an image cannot be decoded.
    """
    side = reconstructed.own_manifest.image_size
    distance = _lpips(compute) if lpips else None
    found: dict[str, list[Tensor]] = {}
    with progress("quality", len(original.records), "images") as advance:
        for start in range(0, len(original.records), _BATCH):
            positions = range(start, min(start + _BATCH, len(original.records)))
            before, after = (_images(data, positions, side, compute) for data in (original, reconstructed))
            for name, value_N in _measures(before, after, distance).items():
                found.setdefault(name, []).append(value_N.double().cpu())
            advance(len(positions))
    return {name: _joined(values) for name, values in found.items()}


def _joined(values: Sequence[Tensor]) -> NDArray[np.float64]:
    joined: NDArray[np.float64] = torch.cat(list(values)).numpy()
    return joined


def _images(data: TestSet, positions: range, side: int, compute: Compute) -> Tensor:
    records = [data.records[position] for position in positions]
    images = torch.stack([load_image(data.source.read(record), record.name, side) for record in records])
    return images.to(compute.device).float() / 255


def _measures(before: Tensor, after: Tensor, distance: Any) -> dict[str, Tensor]:
    psnr = peak_signal_noise_ratio(after, before, data_range=_PEAK, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(after, before, data_range=_PEAK, reduction="none")
    measures = {"psnr": psnr.clamp(max=HIGHEST_PSNR), "ssim": torch.as_tensor(ssim).reshape(-1)}
    if distance is not None:
        measures["lpips"] = torch.stack([distance(after[i : i + 1], before[i : i + 1]) for i in range(len(before))])
    return measures


def _lpips(compute: Compute) -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        return LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(compute.device)
    except (OSError, RuntimeError) as error:
        raise UserError(f"LPIPS needs AlexNet's weights, which cannot be had ({error}); leave out --lpips.") from error
