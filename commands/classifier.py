"""`advbn-gen train-classifier`: a classifier from scratch, for data without published weights."""

from pathlib import Path
from typing import Any

import click

from commands.options import FILE, FOLDER, given, json_option, overwrite_option, print_result, training_options

_DEFAULTS = {"epochs": 20, "batch_size": 64, "lr": 2e-3, "weight_decay": 1e-2, "schedule": "cosine", "warmup": 0.1}
_IMAGE_SIZE = 224


@click.command(short_help="Train a classifier from scratch.")
@click.option("--arch", required=True, metavar="NAME", help="Any torchvision classifier.")
@click.option("--source", required=True, help="Training images.")
@click.option("--val", "held_out", help="Images to score after each epoch. [default: one in twenty of the source]")
@click.option("--labels", type=FILE, help="Label list or devkit of a flat ILSVRC2012 --val.")
@click.option("--image-size", type=int, help="Side of the crops. [default: 224]")
@click.option("--smallest-crop", type=float, default=0.35, show_default=True, help="Share of an image.")
@click.option("--loaders", type=int, help="Decoding processes. [default: 0]")
@click.option("--out", type=FOLDER, required=True, help="Run folder.")
@training_options
@overwrite_option
@json_option
def train_classifier(out: Path, as_json: bool, **options: Any) -> None:
    """Train a torchvision network from scratch (AdamW, cosine), for data that no published weights fit.

    Leaves classifier.safetensors, a plain torchvision state dict, and metrics.jsonl. Given again, the same command goes
    on from its checkpoint. The folder serves as a model SPEC, and the file as weights of an encoder.

    \b
    Example:
      advbn-gen train-classifier --arch resnet18 --width 0.5 --source imagenette/train --val imagenette/val \\
        --image-size 128 --out resnet18
    """
    from networks.scratch import ClassifierRequest, fit_from_scratch

    training = given(**{name: options[name] for name in _CONFIG_OPTIONS})
    request = ClassifierRequest(
        arch=options["arch"], source=options["source"], held_out=options["held_out"], out=out, limit=options["limit"],
        width=1.0 if options["width"] is None else options["width"], labels=options["labels"],
        smallest_crop=options["smallest_crop"],
        training={"image_size": _IMAGE_SIZE, **_DEFAULTS, **training},
    )  # fmt: skip
    path, top1 = fit_from_scratch(request, overwrite=options["overwrite"])
    lines = [f"held-out top-1: {top1:.1%}", str(path)]
    print_result({"classifier": str(path), "held_out_top1": top1}, lines, as_json=as_json)


_CONFIG_OPTIONS = (
    "epochs", "batch_size", "lr", "seed", "image_size", "loaders", "device", "devices", "precision",
)  # fmt: skip
