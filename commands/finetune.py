"""`advbn-gen finetune`: fine-tuning with AdvBN."""

from typing import TYPE_CHECKING, Any

import click

from basics.progress import say
from commands.options import FOLDER, json_option, overwrite_option, print_result, training_options

if TYPE_CHECKING:
    from networks.classifiers import Classifier


@click.command(short_help="Fine-tune a classifier with AdvBN.")
@click.option("--arch", required=True, metavar="NAME", help="resnet18/34/50/101, densenet121, efficientnet_b0, ...")
@click.option("--method", default="advbn", show_default=True, help="advbn, or plain for the baseline.")
@click.option("--source", help="Training images. [default: the embedded drawn world]")
@click.option("--val", "held_out", help="Images to score after each epoch. [default: one in twenty of the source]")
@click.option("--init", metavar="SPEC", help="Weights to start from. [default: the published ones of --arch]")
@click.option("--cut", metavar="NAME", help="Where AdvBN stands: conv2, conv3, conv4, or a module. [as published]")
@click.option("--eps", type=float, help="Radius of the ball around 1. [default: 1.1; efficientnet_b0: 0.5]")
@click.option("--steps", type=int, help="Ascent steps. [default: 6; efficientnet_b0: 3]")
@click.option("--step-size", type=float, help="Length of a step. [default: 0.2]")
@click.option("--image-size", type=int, help="Side of the crops. [default: 224; the drawn world: 48]")
@click.option("--loaders", type=int, help="Decoding processes a device. [default: 0]")
@click.option("--out", type=FOLDER, required=True, help="Run folder.")
@training_options
@overwrite_option
@json_option
def finetune(**options: Any) -> None:
    """Fine-tune the part of a classifier behind a cut, clean and AdvBN features 1:1, with auxiliary batch norm.

    Leaves main.safetensors and auxiliary.safetensors, plain torchvision state dicts with one of the two batch-norm
    sets each, and metrics.jsonl. Given again, the same command goes on from its checkpoint.

    \b
    Example:
      advbn-gen finetune --arch resnet50 --source ILSVRC2012/train --val ILSVRC2012_val --out resnet50-advbn
    """
    from dataclasses import replace

    from attacks.statistics import AdvBNConfig
    from downstream.finetuning import PUBLISHED_ATTACKS, FineTuning
    from downstream.finetuning_request import FineTuningRequest, fit
    from networks.cuts import cut_of
    from pipeline.sample import SAMPLE_IMAGE_SIZE
    from sources.drawn import DrawnSource
    from training.folder import is_first_process

    training = {name: options[name] for name in _CONFIG_OPTIONS if options[name] is not None}
    strength = {name: options[name] for name in ("eps", "steps", "step_size") if options[name] is not None}
    source: Any = options["source"]
    if source is None:
        say("No --source: using the embedded drawn world.")
        source = DrawnSource("train", SAMPLE_IMAGE_SIZE)
        training = {"image_size": SAMPLE_IMAGE_SIZE, **training}
    tuning = FineTuning(
        start=_start(options["arch"], options["init"], drawn=options["source"] is None, width=options["width"]),
        cut=cut_of(options["arch"], options["cut"]),
        method=options["method"],
        attack=replace(PUBLISHED_ATTACKS.get(options["arch"], AdvBNConfig()), **strength),
    )
    held_out = options["held_out"] or (DrawnSource("val", SAMPLE_IMAGE_SIZE) if options["source"] is None else None)
    request = FineTuningRequest(
        tuning=tuning, source=source, held_out=held_out, out=options["out"], limit=options["limit"], training=training
    )
    files, measured = fit(request, overwrite=options["overwrite"])
    if not is_first_process(options["devices"]):
        return
    shares = ", ".join(f"{name.rpartition('_')[2]} batch norm {value:.1%}" for name, value in measured.items())
    lines = [f"held-out top-1: {shares}", *map(str, files.values())]
    print_result({**measured, **{name: str(path) for name, path in files.items()}}, lines, as_json=options["as_json"])


_CONFIG_OPTIONS = (
    "epochs", "batch_size", "lr", "seed", "image_size", "loaders", "device", "devices", "precision",
)  # fmt: skip


def _start(arch: str, init: str | None, *, drawn: bool, width: float | None) -> "Classifier":
    """Return the classifier to start from.

    Raises:
        UserError: it is of another architecture or width than asked for.
    """
    from basics.errors import UserError
    from networks.specs import load_model
    from pipeline.sample import RECIPES, sample_classifier

    if init is None and drawn:
        known = {recipe.network: encoder for encoder, recipe in RECIPES.items()}
        if arch not in known:
            raise UserError(f"The drawn world has no {arch}; give --init, or --arch with one of {', '.join(known)}.")
        init = str(sample_classifier(known[arch]))
    start = load_model(init or arch)
    if start.name != arch:
        raise UserError(f"--init {init} is a {start.name}, not a {arch}; give the --arch that it is.")
    if width is not None and width != start.width:
        raise UserError(f"The weights to start from have width {start.width:g}, not {width:g}; leave --width out.")
    return start
