"""The small networks of the embedded drawn world: trained at first use, and stored in the user's cache folder."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from basics.errors import UserError
from basics.files import digest_json
from basics.ownership import lock_folder
from basics.progress import say
from decoders.request import AutoencoderRequest, train_autoencoder
from encoders import encoder_kind
from networks.request import ClassifierRequest, train_classifier
from networks.task import ClassifierConfig, SideImage
from networks.weight_files import AUTOENCODER_FILE, CLASSIFIER_FILE
from sources.drawn.source import WORLD_VERSION, DrawnSource
from training.config import TrainingConfig
from training.data import Variation

DRAWN_IMAGE_SIZE = 48
"""Smaller than the 64 px that `sample-data` draws, so that two cores train the networks within two minutes."""
CACHE_VARIABLE = "ADVBN_CACHE"

_FILES_VERSION = 3
"""Version of the networks' files; it is raised when they get more metadata."""

_DONE = "done"
"""File that is made when a training has ended: the weights are written after each epoch."""

WIDTH = 1 / 8
"""Width of the small networks: the narrowest whose reconstructions are still recognised well enough."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the small networks of one encoder (docs/choices.md says how these numbers were found)."""

    network: str
    """Name of torchvision's network that is attacked, and whose first layers become the encoder."""
    options: Mapping[str, Any]
    """Options of torchvision's constructor."""
    side: SideImage | None
    """Additional loss that makes its first layers preserve colours; None if they do so by themselves."""
    classifier: TrainingConfig
    """Settings of the classifier's training."""
    decoder: TrainingConfig
    """Settings of the decoder's training."""


def _training(**settings: Any) -> TrainingConfig:
    return TrainingConfig(image_size=DRAWN_IMAGE_SIZE, device="cpu", schedule="cosine", loaders=0, **settings)


RECIPES = {
    "vgg": Recipe(
        network="vgg19_bn",
        options={"dropout": 0.0},
        side=SideImage(tap="features.29", channels=64, reduction=8, coarseness=4, weight=20.0),
        classifier=_training(epochs=7, batch_size=16, lr=2e-3, weight_decay=1e-2, warmup=0.25),
        decoder=_training(epochs=5, batch_size=16, lr=5e-3, warmup=0.15),
    ),
    "resnet": Recipe(
        network="resnet50",
        options={"zero_init_residual": True},
        side=None,
        classifier=_training(epochs=9, batch_size=32, lr=3e-3, weight_decay=1e-2, warmup=0.25),
        decoder=_training(epochs=5, batch_size=16, lr=5e-3, warmup=0.15),
    ),
}


@dataclass(frozen=True, kw_only=True)
class DrawnNetworks:
    """Paths of the small networks of one encoder."""

    autoencoder: Path
    classifier: Path


def cache_folder() -> Path:
    """Return the folder of the small networks, in `$ADVBN_CACHE`, else in the user's cache folder.

    Its name depends on everything that this program decides about the networks. It does not depend on torch's version,
    so that trained networks are still used after an update of torch.
    """
    root = os.environ.get(CACHE_VARIABLE)
    base = Path(root) if root else user_cache_path("advbn-gen")
    made_from = {
        "recipes": {name: asdict(recipe) for name, recipe in RECIPES.items()},
        "width": WIDTH,
        "image_size": DRAWN_IMAGE_SIZE,
        "world": WORLD_VERSION,
        "files": _FILES_VERSION,
        "program": version("advbn-gen"),
    }
    return base / f"drawn-world-{digest_json(made_from)[:12]}"


def drawn_networks(encoder: str) -> DrawnNetworks:
    """Return the drawn world's autoencoder and the classifier that it attacks; they are trained at first use."""
    out = cache_folder() / f"autoencoder-{encoder}"
    classifier = drawn_classifier(encoder)
    if not _finished(out, AUTOENCODER_FILE):
        _announce(f"{encoder} autoencoder", out)
        train_autoencoder(drawn_request(encoder, out))
        _finish(out)
    return DrawnNetworks(autoencoder=out / AUTOENCODER_FILE, classifier=classifier)


def drawn_classifier(encoder: str) -> Path:
    """Return the drawn world's classifier that belongs to an encoder; it is trained at first use."""
    recipe = _recipe(encoder)
    out = cache_folder() / f"classifier-{recipe.network}"
    if not _finished(out, CLASSIFIER_FILE):
        _announce(f"classifier {recipe.network}", out)
        request = ClassifierRequest(
            source=_drawn("train"),
            held_out=_drawn("val"),
            out=out,
            training=recipe.classifier,
            classifier=ClassifierConfig(arch=recipe.network, width=WIDTH, options=recipe.options, side=recipe.side),
            variation=Variation(),
        )
        train_classifier(request)
        _finish(out)
    return out / CLASSIFIER_FILE


def drawn_request(encoder: str, out: Path, encoder_weights: str | None = None) -> AutoencoderRequest:
    """Return the training of a drawn-world autoencoder.

    Args:
        encoder: name of the encoder.
        out: run folder.
        encoder_weights: weights of the encoder; None takes the first layers of the drawn world's own classifier.
    """
    recipe = _recipe(encoder)
    return AutoencoderRequest(
        encoder=encoder,
        source=_drawn("train"),
        held_out=_drawn("val"),
        encoder_weights=encoder_weights or str(drawn_classifier(encoder)),
        out=out,
        training=recipe.decoder,
    )


def _recipe(encoder: str) -> Recipe:
    if encoder_kind(encoder).name not in RECIPES:
        raise UserError(
            f"The drawn world has no networks for the encoder {encoder}; give --source and weights of your own."
        )
    return RECIPES[encoder]


@cache
def _drawn(split: str) -> DrawnSource:
    """Return the images of a split; the networks of both encoders are trained on the same ones."""
    return DrawnSource(split, DRAWN_IMAGE_SIZE, keep=True)


def _announce(what: str, out: Path) -> None:
    """Announce a training.

    Raises:
        UserError: its folder cannot be written, or another run trains it now.
    """
    # Only tried: the training locks it itself, and would otherwise be announced before it is refused.
    with lock_folder(out, f"set {CACHE_VARIABLE} to another folder"):
        pass
    say(f"Training the drawn world's {what} (once; kept in {out}).")


def _finished(out: Path, name: str) -> bool:
    return (out / name).is_file() and (out / _DONE).is_file()


def _finish(out: Path) -> None:
    (out / _DONE).touch()
