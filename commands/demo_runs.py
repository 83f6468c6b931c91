"""What `advbn-gen demo` does: an attack on the drawn world's network, or on a real one, with its gap report."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from basics.files import require_apart
from basics.progress import say
from decoders.request import AutoencoderRequest, train_autoencoder
from downstream.gap import GapRequest
from downstream.own_images import OwnImages, collect_images
from encoders import split_encoder
from experiments import imagenet_advbn
from networks.packaged import PACKAGED_PREFIX
from networks.specs import load_model
from networks.weight_files import AUTOENCODER_FILE
from pipeline.config import GenerationConfig
from pipeline.drawn_networks import DRAWN_IMAGE_SIZE, drawn_classifier, drawn_networks
from pipeline.generation import generate
from pipeline.job import products_of
from reports.gap import KIND
from reports.gap_object import GapReport
from reports.page import require_own_report
from sources.drawn.source import PER_CLASS
from sources.drawn.world import write_world
from sources.opening import open_source
from training.config import TrainingConfig

_ENCODER, _UNSEEN = "vgg", "resnet"
_ATTACKED = "packaged:efficientnet-lite0"
_PRETRAINED = (_ATTACKED, "packaged:efficientnet-lite1", "packaged:efficientnet-lite2")
_FRONT = "blocks.1"
_DECODER_WIDTH = 0.375
_EPOCHS, _CROPS = 4, 1000
"""The decoder of a real network's front is trained for so many epochs of at least so many crops."""


def attack_drawn_world(out: Path) -> dict[str, Any]:
    """Draw the world, attack its small network, and return the values of the report in `out`."""
    require_own_report(out, KIND)
    say("Drawing train/ and val/ ...")
    drawn = out / "drawn"
    write_world(drawn, size=DRAWN_IMAGE_SIZE, sets=PER_CLASS)
    networks = drawn_networks(_ENCODER)
    unseen = drawn_classifier(_UNSEEN)
    config = replace(
        imagenet_advbn(_ENCODER, str(drawn.absolute()), str(networks.autoencoder)),
        classifier_weights=str(networks.classifier),
        image_size=DRAWN_IMAGE_SIZE,
    )
    models = {path.parent.name.removeprefix("classifier-"): str(path) for path in (networks.classifier, unseen)}
    return _attack(config, "sample-advbn-vgg", models, out)


def attack_photographs(source: str | None, labels: Path | None, limit: int, out: Path) -> dict[str, Any]:
    """Attack a real network on photographs, and return the values of the report in `out`.

    Args:
        source: a source, or a folder of images without labels; None for the photographs of installed packages.
        labels: label list or devkit of a flat ILSVRC2012 folder.
        limit: at most so many images, evenly spread.
        out: folder of all outputs.

    Raises:
        UserError: there are no photographs, a package with weights is not installed, or `out` holds others.
    """
    require_own_report(out, KIND)
    if source is not None:
        require_apart(source, out)
    for each in _PRETRAINED[1:]:
        load_model(each)
    name = _ATTACKED.removeprefix(PACKAGED_PREFIX)
    images = collect_images(source, out / "originals", limit, load_model(_ATTACKED), name, labels=labels)
    encoder, weights = split_encoder(f"{_ATTACKED}@{_FRONT}")
    train_autoencoder(_decoder(images, encoder, weights or "", out / "autoencoder"))
    config = replace(
        imagenet_advbn(encoder, str(images.folder.absolute()), str(out / "autoencoder" / AUTOENCODER_FILE)),
        classifier_weights=_ATTACKED,
    )
    notes = (*images.notes, "The decoder was trained on these same images, so it renders them better than others.")
    models = {each.removeprefix(PACKAGED_PREFIX): each for each in _PRETRAINED}
    return _attack(config, "advbn", models, out, notes)


def _decoder(images: OwnImages, encoder: str, weights: str, out: Path) -> AutoencoderRequest:
    """Return the training of a decoder on a few images, each of which occurs often enough in an epoch."""
    source = open_source(str(images.folder))
    source.records = list(source.records) * -(-_CROPS // images.count)
    training = TrainingConfig(epochs=_EPOCHS, batch_size=8, lr=1e-3, image_size=144, schedule="cosine")
    return AutoencoderRequest(
        encoder=encoder, encoder_weights=weights, width=_DECODER_WIDTH, source=source, held_out=str(images.folder),
        out=out, training=training,
    )  # fmt: skip


def _attack(
    config: GenerationConfig, name: str, models: Mapping[str, str], out: Path, notes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Make the data sets `name` and its reconstructions in `out`, and report on models."""
    config = replace(config, reconstructed=True)
    perturbed, reconstructed = products_of(config, out / name, name)
    generate(config, out / name, name=name)
    request = GapRequest(
        original=str(config.source), reconstructed=str(reconstructed.folder), advbn=str(perturbed.folder),
        models=models, out=out, notes=notes,
    )  # fmt: skip
    return dict(GapReport.compute(request).write())
