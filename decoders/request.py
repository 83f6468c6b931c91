"""The request for a trained decoder, and carrying it out."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from basics.errors import UserError
from decoders.adain import scale_to_features
from decoders.autoencoder import (
    Autoencoder,
    autoencoder_from_encoder,
    load_autoencoder,
    load_encoder,
    network_state,
    weights_of_encoder,
)
from decoders.task import TOTAL_VARIATION_WEIGHT, AutoencoderTask
from encoders import EncoderKind, encoder_kind
from networks.checkpoints import StateDict, weights_checksum
from networks.classifiers import PUBLISHED, SEED_PREFIX, published_network, seed_of
from training.data import HELD_OUT_LIMIT, Variation, training_images
from training.evaluation import batched
from training.folder import is_first_process
from training.loop import train
from training.request import TrainingRequest, TrainingResult, open_if_address

_SCALE_IMAGES = 16
"""Held-out images whose features show how large a front's features are."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderRequest(TrainingRequest):
    """A decoder to be trained for a frozen encoder; `labels` are those of the training images."""

    encoder: str
    """Name of the encoder (see `encoders.encoder_kind`)."""
    encoder_weights: str = PUBLISHED
    """`published`, a file, or `seed:N`; of a network's front also `packaged:NAME`."""
    width: float | None = None
    """Channel factor; None: what the weights have. Of a network's front it is the decoder's; None: 1."""


def train_autoencoder(request: AutoencoderRequest, *, overwrite: bool = False) -> TrainingResult:
    """Train a decoder; return the file of the autoencoder (`autoencoder`) and its metadata.

    Writes `autoencoder.safetensors`, `metrics.jsonl`, `reconstructions/epoch-*.png` (originals above
    reconstructions), `settings.json` and `checkpoint.pt`.

    Args:
        request: what is trained, on what, how, and where to.
        overwrite: start anew and remove the files of an earlier run.

    Raises:
        UserError: a part of the request does not exist or does not fit, or the folder holds another run.
        WorkError: the loss is no longer a number.
    """
    config = request.training
    kind = encoder_kind(request.encoder)
    kind.require_size(config.image_size)
    request.require_possible()
    source = open_if_address(request.source, labels=request.labels, split="train")
    held_source = None if request.held_out is None else open_if_address(request.held_out, split="val")
    images, held_out = training_images(
        source, held_source, config, limit=request.limit, held_out_limit=HELD_OUT_LIMIT, variation=Variation()
    )
    module, form = _fresh_autoencoder(kind, request)
    if kind.network is not None:
        # The published encoders' features have the size that fresh weights expect.
        image_N3HW, _ = next(batched(held_out, _SCALE_IMAGES))
        with torch.no_grad():
            scale_to_features(module.decoder, module.encoder(image_N3HW.float() / 255))
    identity: dict[str, Any] = {
        "encoder": kind.name,
        "width": module.width,
        "encoder_sha256": weights_checksum(module.encoder.state_dict()),
        "total_variation_weight": TOTAL_VARIATION_WEIGHT,
        "images": len(images),
        "source": images.source.address,
        "records_sha256": images.source.digest(),
        "encoder_weights": request.encoder_weights,
        "held_out": len(held_out),
    }
    metadata = {"training": asdict(config), **identity}
    task = AutoencoderTask(module, form, held_out, request.out, metadata, devices=config.devices)
    train(task, images, config, request.out, identity, held_out=held_out, overwrite=overwrite)
    path, _ = task.outputs
    first = is_first_process(config.devices)
    return TrainingResult(files={"autoencoder": path}, metadata=load_autoencoder(path).origin if first else {})


def _fresh_autoencoder(kind: EncoderKind, request: AutoencoderRequest) -> tuple[Autoencoder, str]:
    """Return an autoencoder with the encoder's weights and a decoder fresh from the seed, and the weights' form."""
    torch.manual_seed(request.training.seed)
    if kind.network is not None:
        return _around_front(kind, request)
    if request.encoder_weights.startswith(SEED_PREFIX):
        torch.manual_seed(seed_of(request.encoder_weights))
        return Autoencoder(kind, 1.0 if request.width is None else request.width), request.encoder_weights
    module, form = autoencoder_from_encoder(kind, _encoder_state(kind, request.encoder_weights))
    if request.width is not None and request.width != module.width:
        raise UserError(f"The encoder weights have width {module.width:g}, not {request.width:g}; leave --width out.")
    return module, form


def _around_front(kind: EncoderKind, request: AutoencoderRequest) -> tuple[Autoencoder, str]:
    """Return an autoencoder around a network's front, and the origin of the network's weights."""
    state, origin = network_state(kind, request.encoder_weights)
    module = Autoencoder(kind, 1.0 if request.width is None else request.width)
    load_encoder(module, kind.convert(state)[0])
    return module, origin


def _encoder_state(kind: EncoderKind, weights: str) -> StateDict:
    if weights == PUBLISHED:
        return dict(published_network(kind.classifier, "--encoder-weights").state_dict())
    return weights_of_encoder(kind, Path(weights))
