"""`advbn-gen train-classifier` and `import-classifier`: classifiers without published weights, and of a user's own."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.options import (
    FILE,
    FOLDER,
    ManyValues,
    combined_options,
    given,
    json_option,
    loaders_option,
    overwrite_option,
    print_result,
    training_options,
)

if TYPE_CHECKING:
    from networks.normalise import Colours
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


@click.command(short_help="Your own state dict as a classifier file.", cls=ManyValues)
@click.option("--arch", required=True, metavar="NAME", help="Its network: torchvision's, or timm:NAME.")
@click.option("--weights", type=FILE, required=True, help="Its weights: a state dict, plain or in a checkpoint.")
@click.option(
    "--classes", type=FILE, required=True,
    help="Its classes in the order of the outputs: a text file with a name a line, or a folder of class folders, whose "
    "sorted names they are (as with torchvision's ImageFolder).",
)  # fmt: skip
@click.option("--image-size", type=int, required=True, help="Side of the square that it takes, from the centre.")
@click.option("--resize", type=int, help="Length of the short side before that. [default: --image-size]")
@click.option("--squash", is_flag=True, help="Resize both sides, as torchvision's Resize((N, N)) does.")
@click.option(
    "--interpolation", type=click.Choice(["bilinear", "bicubic"]), metavar="NAME",
    help="How images are resized: bilinear or bicubic. [default: bilinear]",
)  # fmt: skip
@click.option(
    "--mean", type=float, multiple=True, metavar="R G B",
    help="Mean of the colours, of pixels in [0, 1]; one number stands for all three. [default: ImageNet's, or those of "
    "timm's network]",
)  # fmt: skip
@click.option("--std", type=float, multiple=True, metavar="R G B", help="Their standard deviation, given with --mean.")
@click.option("--no-normalisation", is_flag=True, help="Pixels in [0, 1] as they are, as after ToTensor alone.")
@click.option("--out", type=FILE, required=True, help="File to write (.safetensors).")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@json_option
def import_classifier(out: Path, as_json: bool, **options: Any) -> None:
    """Turn a state dict of your own training into a file that also says classes, size and colours.

    The file is a model SPEC: `score`, `evaluate`, `report gap`, `imagenet-advbn --classifier` and `finetune --init`
    then prepare images as that training did. A network of some of ImageNet's classes, named by their wnids, is scored
    and attacked on images of these. Code in a pickle is never run.

    \b
    Example:
      advbn-gen import-classifier --arch resnet18 --weights mine.pth --classes imagenette/train --image-size 64 \\
        --no-normalisation --out mine.safetensors
    """
    from basics.errors import UserError
    from basics.files import require_writable_folder
    from basics.progress import say
    from networks.own import INTERPOLATIONS, classes_at, first_names, own_view
    from networks.own import import_classifier as write_classifier
    from networks.specs import TIMM_PREFIX

    if out.suffix != ".safetensors":
        raise UserError(f"The output {out} does not end in .safetensors; give a name that does.")
    if out.is_dir():
        raise UserError(f"The output {out} is a folder; give a file.")
    if out.exists() and not options["overwrite"]:
        raise UserError(f"The file {out} is there already; give another --out, or --overwrite.")
    colours, arch = _colours(options), options["arch"]
    view = own_view(
        options["image_size"], options["resize"], squash=options["squash"],
        interpolation=options["interpolation"] or INTERPOLATIONS[0],
    )  # fmt: skip
    classes = classes_at(options["classes"])
    require_writable_folder(out.absolute().parent)
    taken = write_classifier(arch, options["weights"], classes, view, colours, out)
    if options["interpolation"] is None and arch.startswith(TIMM_PREFIX):
        say(
            "No interpolation was given: images are resized bilinearly, as by torchvision; give --interpolation "
            f"bicubic if {arch} was trained with that."
        )
    result = {
        "classifier": str(out), "arch": arch, "classes": list(classes.names), "transform": view.describe(),
        "colours": taken.as_json(),
    }  # fmt: skip
    lines = [
        f"{arch} of {classes.count} classes ({first_names(classes)})",
        f"images: {view.describe()}; colours: {taken.describe()}",
        str(out),
    ]
    print_result(result, lines, as_json=as_json)


def _colours(options: Mapping[str, Any]) -> "Colours | None":
    """Return the colours that the options say; None if they say none.

    Raises:
        UserError: they contradict each other, or are none of pixels in [0, 1].
    """
    from basics.errors import UserError
    from networks.normalise import PIXELS, checked_colours

    # One number stands for all three colours.
    mean, std = (values * 3 if len(values) == 1 else values or None for values in (options["mean"], options["std"]))
    if options["no_normalisation"]:
        if mean is not None or std is not None:
            raise UserError("--no-normalisation takes pixels as they are; leave out --mean and --std.")
        return PIXELS
    if (mean is None) != (std is None):
        missing, other = ("--mean", "--std") if mean is None else ("--std", "--mean")
        raise UserError(f"{other} is given without {missing}; give both, or --no-normalisation.")
    return None if mean is None or std is None else checked_colours(mean, std)
