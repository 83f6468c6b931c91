"""The embedded drawn world's own networks: small, trained at first use, kept in the user's cache folder."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from basics.errors import UserError
from basics.files import digest_json, require_writable_folder
from basics.progress import say
from decoders.request import AutoencoderRequest, train_autoencoder
from decoders.task import AUTOENCODER_FILE
from encoders import encoder_kind
from networks.task import CLASSIFIER_FILE, ClassifierConfig, ClassifierTask, SideImage
from sources.drawn.source import WORLD_VERSION, DrawnSource
from training.config import TrainingConfig
from training.data import TrainingImages, Variation
from training.loop import train

SAMPLE_IMAGE_SIZE = 48
"""Smaller than the 64 px that `sample-data` draws, so that two cores train the networks within two minutes."""
CACHE_VARIABLE = "ADVBN_CACHE"

_FILES_VERSION = 2
"""Counted up when the networks' files come to tell more."""

WIDTH = 1 / 8
"""Of all small networks: the narrowest that still reconstruct well enough to be recognised."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the small networks of one encoder are made (docs/choices.md tells how these numbers were found)."""

    network: str
    """torchvision network that is attacked, and whose first layers become the encoder."""
    options: Mapping[str, Any]
    """torchvision's options for it."""
    side: SideImage | None
    """What makes its first layers keep colours, if they do not by themselves."""
    classifier: Mapping[str, Any]
    """Training of the classifier: fields of TrainingConfig."""
    decoder: Mapping[str, Any]
    """Training of the decoder."""


RECIPES = {
    "vgg": Recipe(
        network="vgg19_bn",
        options={"dropout": 0.0},
        side=SideImage(tap="features.29", channels=64, reduction=8, coarseness=4, weight=20.0),
        classifier={
            "epochs": 7,
            "batch_size": 16,
            "lr": 2e-3,
            "weight_decay": 1e-2,
            "schedule": "cosine",
            "warmup": 0.25,
        },
        decoder={"epochs": 5, "batch_size": 16, "lr": 5e-3, "schedule": "cosine", "warmup": 0.15},
    ),
    "resnet": Recipe(
        network="resnet50",
        options={"zero_init_residual": True},
        side=None,
        classifier={
            "epochs": 9,
            "batch_size": 32,
            "lr": 3e-3,
            "weight_decay": 1e-2,
            "schedule": "cosine",
            "warmup": 0.25,
        },
        decoder={"epochs": 5, "batch_size": 16, "lr": 5e-3, "schedule": "cosine", "warmup": 0.15},
    ),
}


@dataclass(frozen=True, kw_only=True)
class SampleNetworks:
    """Where the small networks of one encoder are."""

    autoencoder: Path
    classifier: Path


def cache_folder() -> Path:
    """Return where the small networks are kept: `$ADVBN_CACHE`, else the user's cache folder.

    The folder's name follows from everything that this program decides about them. Not from torch's version: networks
    that are there already go on being used after an update of it.
    """
    root = os.environ.get(CACHE_VARIABLE)
    base = Path(root) if root else user_cache_path("advbn-gen")
    made_from = {
        "recipes": {name: asdict(recipe) for name, recipe in RECIPES.items()},
        "width": WIDTH,
        "image_size": SAMPLE_IMAGE_SIZE,
        "world": WORLD_VERSION,
        "files": _FILES_VERSION,
        "program": version("advbn-gen"),
    }
    return base / f"drawn-world-{digest_json(made_from)[:12]}"


def sample_networks(encoder: str) -> SampleNetworks:
    """Return the drawn world's autoencoder and the classifier that it is turned against; train them at first use."""
    out = cache_folder() / f"autoencoder-{encoder}"
    classifier = sample_classifier(encoder)
    if not _finished(out, AUTOENCODER_FILE):
        _announce(f"{encoder} autoencoder", out)
        train_autoencoder(sample_request(encoder, out))
        _finish(out)
    return SampleNetworks(autoencoder=out / AUTOENCODER_FILE, classifier=classifier)


def sample_classifier(encoder: str) -> Path:
    """Return the drawn world's classifier that belongs to an encoder; train it at first use."""
    recipe = _recipe(encoder)
    out = cache_folder() / f"classifier-{recipe.network}"
    if not _finished(out, CLASSIFIER_FILE):
        _announce(f"classifier {recipe.network}", out)
        images, held_out = _drawn_images()
        config = TrainingConfig(image_size=SAMPLE_IMAGE_SIZE, device="cpu", **recipe.classifier)
        classifier = ClassifierConfig(
            arch=recipe.network, width=WIDTH, options=recipe.options, side=recipe.side
        )  # fmt: skip
        torch.manual_seed(config.seed)
        task = ClassifierTask(classifier, images.source.classes.count, held_out, out)
        train(task, images, config, out, classifier.facts())
        _finish(out)
    return out / CLASSIFIER_FILE


def sample_request(encoder: str, out: Path, encoder_weights: str | None = None) -> AutoencoderRequest:
    """Return the training of a drawn-world autoencoder; without other weights, its encoder is of the own classifier."""
    recipe = _recipe(encoder)
    return AutoencoderRequest(
        encoder=encoder,
        source=DrawnSource("train", SAMPLE_IMAGE_SIZE),
        held_out=DrawnSource("val", SAMPLE_IMAGE_SIZE),
        encoder_weights=encoder_weights or str(sample_classifier(encoder)),
        out=out,
        training=TrainingConfig(image_size=SAMPLE_IMAGE_SIZE, device="cpu", **recipe.decoder),
    )


def _recipe(encoder: str) -> Recipe:
    if encoder_kind(encoder).name not in RECIPES:
        raise UserError(
            f"The drawn world has no networks for the encoder {encoder}; give --source and weights of your own."
        )
    return RECIPES[encoder]


def _drawn_images() -> tuple[TrainingImages, TrainingImages]:
    images = TrainingImages(DrawnSource("train", SAMPLE_IMAGE_SIZE), SAMPLE_IMAGE_SIZE, variation=Variation())
    return images, TrainingImages(DrawnSource("val", SAMPLE_IMAGE_SIZE), SAMPLE_IMAGE_SIZE)


def _announce(what: str, out: Path) -> None:
    """Say what is trained now.

    Raises:
        UserError: nothing can be written there.
    """
    require_writable_folder(out, f"set {CACHE_VARIABLE} to another folder")
    say(f"Training the drawn world's {what} (once; kept in {out}).")


def _finished(out: Path, name: str) -> bool:
    return (out / name).is_file() and (out / _DONE).is_file()


def _finish(out: Path) -> None:
    (out / _DONE).touch()


_DONE = "done"
