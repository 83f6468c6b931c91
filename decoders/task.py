"""Training a decoder for a frozen encoder (paper section 3 and appendix B.1; spec: MSE + 1e-8 total variation)."""

from collections.abc import Mapping
from dataclasses import asdict
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
from networks.checkpoints import weights_checksum
from training.config import TrainingConfig
from training.data import TrainingImages
from training.loop import train

AUTOENCODER_FILE = "autoencoder.safetensors"
PICTURE_FOLDER = "reconstructions"

TOTAL_VARIATION_WEIGHT = 1e-8
"""Weight of the summed L1 total variation (spec)."""

_PICTURE_IMAGES = 8
_EVALUATION_BATCH = 32


def total_variation(image_N3HW: Tensor) -> Tensor:
    """Return the sum of absolute differences between horizontal and vertical neighbours (anisotropic, L1)."""
    down = (image_N3HW[:, :, 1:] - image_N3HW[:, :, :-1]).abs().sum()
    right = (image_N3HW[..., 1:] - image_N3HW[..., :-1]).abs().sum()
    return down + right


class DecoderTask:
    """Pixel MSE + 1e-8 * total variation of reconstructions; only the decoder learns.

    With `devices` that share a batch, each sees its part, and the parts' gradients are averaged.
    """

    def __init__(  # noqa: PLR0913 (what, tried on what, where to, what to tell)
        self,
        module: Autoencoder,
        form: str,
        held_out: TrainingImages,
        out: Path,
        facts: Mapping[str, Any],
        *,
        devices: int = 1,
    ) -> None:
        self.module, self.form, self.held_out, self.out, self.facts = module, form, held_out, out, facts
        # A mean of the parts' means is the whole mean; a mean of the parts' sums is not the whole sum.
        self.weight = TOTAL_VARIATION_WEIGHT * devices

    @property
    def leaves(self) -> tuple[Path, Path]:
        """The autoencoder's file, and the folder of pictures."""
        return self.out / AUTOENCODER_FILE, self.out / PICTURE_FOLDER

    def optimizer(self, config: TrainingConfig) -> Optimizer:
        """Adam over the decoder's weights."""
        return Adam(self.module.decoder.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    def losses(self, module: nn.Module, image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Reconstruction error; labels are not looked at."""
        decoded: Tensor = module(image_N3HW)
        mse = F.mse_loss(decoded, image_N3HW)
        return {"loss": mse + self.weight * total_variation(decoded), "mse": mse}

    def end_epoch(self, epoch: int, compute: Compute) -> dict[str, float]:
        """Measure held-out MSE and PSNR; write a picture and the autoencoder."""
        self.module.eval()
        measured = self._validate(compute)
        self._picture(epoch, compute)
        facts = {**self.facts, "epochs_done": epoch, **measured}
        save_autoencoder(self.leaves[0], self.module, self.form, facts)
        return measured

    @torch.no_grad()
    def _validate(self, compute: Compute) -> dict[str, float]:
        """Mean MSE over the held-out images, and the mean of each image's PSNR in dB, both after clamping to [0, 1]."""
        error_N: list[Tensor] = []
        for start in range(0, len(self.held_out), _EVALUATION_BATCH):
            original = self._originals(range(start, min(start + _EVALUATION_BATCH, len(self.held_out))), compute)
            decoded = self.module(original).clamp(0, 1)
            error_N.append((decoded - original).double().square().mean(dim=(1, 2, 3)).cpu())
        mse_N = torch.cat(error_N)
        return {"held_out_mse": float(mse_N.mean()), "held_out_psnr": float((-10 * mse_N.log10()).mean())}

    @torch.no_grad()
    def _picture(self, epoch: int, compute: Compute) -> None:
        chosen = torch.linspace(0, len(self.held_out) - 1, _PICTURE_IMAGES).long().tolist()
        original = self._originals(sorted(set(chosen)), compute)
        rows = torch.cat((original, self.module(original).clamp(0, 1)))
        path = self.leaves[1] / f"epoch-{epoch:04d}.png"
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            save_image(make_grid(rows, nrow=len(original)), temporary, format="png")

    def _originals(self, indices: range | list[int], compute: Compute) -> Tensor:
        images = torch.stack([self.held_out[0, index][0] for index in indices])
        return images.to(compute.device, compute.dtype) / 255


def train_decoder(  # noqa: PLR0913 (what, on what, tried on what, how, where to)
    module: Autoencoder,
    form: str,
    images: TrainingImages,
    *,
    held_out: TrainingImages,
    config: TrainingConfig,
    out: Path,
    facts: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Train the decoder of an autoencoder into the folder `out`; return the autoencoder's file.

    Leaves `autoencoder.safetensors`, `metrics.jsonl`, `reconstructions/epoch-*.png` (originals above
    reconstructions), `settings.json` and `checkpoint.pt`.

    Args:
        module: encoder with its weights, decoder fresh.
        form: form of the encoder's weights.
        images: training images.
        held_out: images that MSE and PSNR are measured on.
        config: length, speed, randomness.
        out: run folder.
        facts: what else the file should tell (source, weights).
        overwrite: start anew, without what an earlier run left in the folder.

    Raises:
        UserError: `out` holds another run or cannot be written.
        WorkError: the loss is no longer a number.
    """
    told = {
        "encoder": module.kind.name,
        "width": module.width,
        "encoder_sha256": weights_checksum(module.encoder.state_dict()),
        "total_variation_weight": TOTAL_VARIATION_WEIGHT,
        "images": len(images),
        **facts,
    }
    task = DecoderTask(module, form, held_out, out, {"training": asdict(config), **told}, devices=config.devices)
    train(task, images, config, out, told, overwrite=overwrite)
    return task.leaves[0]
