"""From what a user asks for to a trained decoder: images, weights, defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from basics.compute import choose_compute
from basics.errors import UserError
from basics.files import require_apart
from decoders.autoencoder import Autoencoder, autoencoder_from_encoder, load_autoencoder
from decoders.task import train_decoder
from encoders import EncoderKind, encoder_kind
from networks.checkpoints import StateDict, read_weights
from networks.classifiers import PUBLISHED, SEED_PREFIX, published_network, seed_of
from sources.base import Source
from sources.opening import open_source
from training.config import TrainingConfig
from training.data import HELD_OUT_MOST, Variation, training_images

PUBLISHED_DEFAULTS: dict[str, Any] = {"epochs": 4, "batch_size": 32, "lr": 1e-4, "image_size": 256}
"""Adam 1e-4 is the spec's; 4 epochs of ImageNet in batches of 32 are AdaIN's 160,000 iterations."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderRequest:
    """What a training run of a decoder was asked for."""

    encoder: str
    """Name of the encoder."""
    source: str | Source
    """Training images: an address, or an open source."""
    out: Path
    """Run folder."""
    labels: Path | None = None
    """Label list or devkit of a flat ILSVRC2012 folder."""
    held_out: str | Source | None = None
    """Held-out images; None keeps some of the training images back."""
    encoder_weights: str = PUBLISHED
    """`published`, a file, or `seed:N`."""
    width: float | None = None
    """Channel factor; None: what the weights have."""
    limit: int | None = None
    """Only so many training images, evenly spread."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TrainingConfig that differ from PUBLISHED_DEFAULTS."""


def fit_autoencoder(request: AutoencoderRequest, *, overwrite: bool = False) -> tuple[Path, dict[str, Any]]:
    """Train a decoder; return the autoencoder's file and the facts that it holds.

    Raises:
        UserError: something that was asked for does not exist or does not fit.
        WorkError: the loss is no longer a number.
    """
    config = TrainingConfig(**{**PUBLISHED_DEFAULTS, **request.training})
    choose_compute(config.device, config.precision)
    kind = encoder_kind(request.encoder)
    kind.require_size(config.image_size)
    for source in (request.source, request.held_out):
        require_apart(source if isinstance(source, str) else None, request.out)
    train = _opened(request.source, request.labels, "train")
    held_source = None if request.held_out is None else _opened(request.held_out, None, "val")
    images, held_out = training_images(
        train, held_source, config, limit=request.limit, held_out_most=HELD_OUT_MOST, variation=Variation()
    )
    module, form = _fresh_autoencoder(kind, request, config.seed)
    facts = {
        "source": images.source.address,
        "records_sha256": images.source.digest(),
        "encoder_weights": request.encoder_weights,
        "held_out": len(held_out),
    }
    path = train_decoder(
        module, form, images, held_out=held_out, config=config, out=request.out, facts=facts, overwrite=overwrite
    )
    return path, load_autoencoder(path).facts


def _opened(source: str | Source, labels: Path | None, split: str) -> Source:
    return source if isinstance(source, Source) else open_source(source, labels=labels, split=split)


def _fresh_autoencoder(kind: EncoderKind, request: AutoencoderRequest, seed: int) -> tuple[Autoencoder, str]:
    """Return an autoencoder with the encoder's weights and a decoder fresh from the seed."""
    torch.manual_seed(seed)
    if request.encoder_weights.startswith(SEED_PREFIX):
        torch.manual_seed(seed_of(request.encoder_weights))
        return Autoencoder(kind, 1.0 if request.width is None else request.width), request.encoder_weights
    module, form = autoencoder_from_encoder(kind, _encoder_state(kind, request.encoder_weights))
    if request.width is not None and request.width != module.width:
        raise UserError(f"The encoder weights have width {module.width:g}, not {request.width:g}; leave --width out.")
    return module, form


def _encoder_state(kind: EncoderKind, weights: str) -> StateDict:
    if weights == PUBLISHED:
        return dict(published_network(kind.classifier, "--encoder-weights").state_dict())
    return read_weights(Path(weights))
