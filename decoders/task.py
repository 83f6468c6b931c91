"""Training a decoder for a frozen encoder: MSE + 1e-8 total variation (paper 1, section 3 and appendix B.1)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torchvision.utils import make_grid, save_image

from basics.compute import Compute
from basics.files import atomic_path
from decoders.autoencoder import Autoencoder, save_autoencoder
from networks.weight_files import AUTOENCODER_FILE
from training.config import TrainingConfig
from training.data import TrainingImages
from training.evaluation import held_out_scores

PICTURE_FOLDER = "reconstructions"

TOTAL_VARIATION_WEIGHT = 1e-8
"""Weight of the total variation, an L1 norm summed over the batch (paper 1, appendix B.1)."""

_PICTURE_IMAGES = 8


def total_variation(image_N3HW: Tensor) -> Tensor:
    """Return the sum of absolute differences between horizontal and vertical neighbours (anisotropic, L1)."""
    down = (image_N3HW[:, :, 1:] - image_N3HW[:, :, :-1]).abs().sum()
    right = (image_N3HW[..., 1:] - image_N3HW[..., :-1]).abs().sum()
    return down + right


class AutoencoderTask:
    """Pixel MSE + 1e-8 * total variation of reconstructions; only the decoder learns.

    With `devices` that share a batch, each sees its part, and the parts' gradients are averaged.

    Args:
        module: encoder with its weights, decoder fresh.
        form: form of the encoder's weights.
        held_out: images that MSE and PSNR are measured on.
        out: run folder.
        metadata: metadata of the autoencoder's file beside the measurements.
        devices: devices that share a batch.
    """

    def __init__(  # noqa: PLR0913 (each is a part of the file that is written)
        self,
        module: Autoencoder,
        form: str,
        held_out: TrainingImages,
        out: Path,
        metadata: Mapping[str, Any],
        *,
        devices: int = 1,
    ) -> None:
        self.module, self.form, self.held_out, self.out, self.metadata = module, form, held_out, out, metadata
        # A mean of the parts' means is the whole mean; a mean of the parts' sums is not the whole sum.
        self.weight = TOTAL_VARIATION_WEIGHT * devices

    @property
    def outputs(self) -> tuple[Path, Path]:
        """The autoencoder's file, and the folder of pictures."""
        return self.out / AUTOENCODER_FILE, self.out / PICTURE_FOLDER

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """Return Adam over the decoder's weights."""
        return Adam(self.module.decoder.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the reconstruction error; labels are not used."""
        decoded: Tensor = module(image_N3HW)
        mse = F.mse_loss(decoded, image_N3HW)
        return {"loss": mse + self.weight * total_variation(decoded), "mse": mse}

    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
        """Measure the held-out images' mean MSE and mean PSNR (dB); write a picture and the autoencoder."""
        measured = held_out_scores(self.module, self._scores, self.held_out, compute)
        self._picture(epoch, compute)
        save_autoencoder(self.outputs[0], self.module, self.form, {**self.metadata, "epochs_done": epoch, **measured})
        return measured

    def _scores(self, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 (labels are not used)
        """Return each image's MSE and PSNR in dB, both after clamping to [0, 1]."""
        decoded = self.module(image_N3HW).clamp(0, 1)
        mse_N = (decoded - image_N3HW).double().square().mean(dim=(1, 2, 3))
        return {"held_out_mse": mse_N, "held_out_psnr": -10 * mse_N.log10()}

    @torch.no_grad()
    def _picture(self, epoch: int, compute: Compute) -> None:
        chosen = torch.linspace(0, len(self.held_out) - 1, _PICTURE_IMAGES).long().tolist()
        images = torch.stack([self.held_out[0, index][0] for index in sorted(set(chosen))])
        original = images.to(compute.device, compute.dtype) / 255
        rows = torch.cat((original, self.module(original).clamp(0, 1)))
        path = self.outputs[1] / f"epoch-{epoch:04d}.png"
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            save_image(make_grid(rows, nrow=len(original)), temporary, format="png")
