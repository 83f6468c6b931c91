"""`advbn-gen train-classifier`: a classifier from scratch, for data without published weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.options import (
    FILE,
    FOLDER,
    combined_options,
    given,
    json_option,
    loaders_option,
    overwrite_option,
    print_result,
    training_options,
)

if TYPE_CHECKING:
    from networks.request import ClassifierRequest

held_out_options = combined_options(
    click.option("--val", "held_out", help="Images to score after each epoch. [default: one in twenty of the others]"),
    click.option("--labels", type=FILE, help="Label list or devkit of a flat ILSVRC2012 --val."),
    click.option("--smallest-crop", type=float, help="Share of an image. [default: 0.35]"),
    loaders_option,
)


@click.command(short_help="Train a classifier from scratch.")
@click.option("--arch", required=True, metavar="NAME", help="Any classifier of torchvision, or timm:NAME.")
@click.option("--source", required=True, help="Training images.")
@held_out_options
@click.option("--image-size", type=int, help="Side of the crops. [default: 224]")
@click.option("--out", type=FOLDER, required=True, help="Run folder.")
@training_options
@overwrite_option
@json_option
def train_classifier(out: Path, as_json: bool, **options: Any) -> None:
    """Train a network of torchvision or timm from scratch (AdamW, cosine), for data that no published weights fit.

    Writes classifier.safetensors, a plain state dict of the network's own library, and metrics.jsonl. Given again, the
    same command goes on from its checkpoint. The folder serves as a model SPEC, and the file as weights of an encoder.

    \b
    Example:
      advbn-gen train-classifier --arch resnet18 --width 0.5 --source imagenette/train --val imagenette/val \\
        --image-size 128 --out resnet18
    """
    import experiments

    train_and_print(experiments.classifier(options["arch"], options["source"], out), options, as_json=as_json)


def train_and_print(request: "ClassifierRequest", options: Mapping[str, Any], *, as_json: bool) -> None:
    """Train a classifier from scratch, and print its file and accuracy.

    Args:
        request: the training with all its defaults.
        options: of the command; those that were given replace the defaults.
        as_json: how to print.

    Raises:
        UserError: a part of the request does not exist or does not fit.
    """
    from networks.request import train_classifier as train
    from training.folder import is_first_process

    request = replace(
        request,
        classifier=replace(request.classifier, **given(width=options["width"])),
        variation=replace(request.variation, **given(smallest=options["smallest_crop"])),
        training=replace(request.training, **given(**{name: options[name] for name in _CONFIG_OPTIONS})),
        held_out=options["held_out"] or request.held_out,
        labels=options["labels"],
        limit=options["limit"],
    )
    result = train(request, overwrite=options["overwrite"])
    if not is_first_process(options["devices"]):
        return
    path, top1 = result.files["classifier"], result.metadata["held_out_top1"]
    lines = [f"held-out top-1: {top1:.1%}", str(path)]
    print_result({"classifier": str(path), "held_out_top1": top1}, lines, as_json=as_json)


_CONFIG_OPTIONS = (
    "loaders", "epochs", "batch_size", "lr", "seed", "image_size", "device", "devices", "precision",
)  # fmt: skip
