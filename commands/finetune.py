"""`advbn-gen finetune`: fine-tuning with AdvBN, the baselines, and combinations."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from basics.progress import say
from commands.options import (
    FILE,
    FOLDER,
    ManyValues,
    combined_options,
    fraction,
    given,
    json_option,
    loaders_option,
    micro_batch_option,
    overwrite_option,
    print_result,
    training_options,
)

if TYPE_CHECKING:
    from downstream.request import FineTuningRequest

_data_options = combined_options(
    click.option("--source", help="Training images. [default: the embedded drawn world]"),
    click.option("--val", "held_out", help="Images to score after each epoch. [default: one in twenty of the source]"),
    click.option("--labels", type=FILE, help="Label list or devkit of a flat ILSVRC2012 --val."),
    click.option("--mix", metavar="P", help="A second source to train on, e.g. shards of ImageNet-AdvBN."),
    click.option("--mix-share", type=float, help="Share of each batch that comes from --mix. [default: 0.5]"),
    click.option("--image-size", type=int, help="Side of the crops. [default: 224; the drawn world: 48]"),
    click.option("--smallest-crop", type=float, help="Share of an image. [default: 0.08; the drawn world: 0.8]"),
    loaders_option,
)
_attack_options = combined_options(
    click.option("--eps", type=float, help="Radius of the ball around 1. [default: 1.1; efficientnet_b0: 0.5]"),
    click.option("--steps", type=int, help="Ascent steps. [default: 6; efficientnet_b0: 3]"),
    click.option("--step-size", type=float, help="Length of a step. [default: 0.2]"),
    click.option("--pixel-eps", callback=fraction, metavar="X", help="Radius of the pixels' ball. [default: 4/255]"),
    click.option("--pixel-steps", type=int, help="Pixel ascent steps. [default: 5]"),
    click.option("--pixel-step-size", callback=fraction, metavar="X", help="Length of a pixel step. [default: 1/255]"),
    click.option(
        "--statistics", metavar="WHOSE",
        help="On several devices: those of each device's part of a batch (local), or synchronised. [default: local]",
    ),
    micro_batch_option,
)  # fmt: skip
_schedule_options = combined_options(
    click.option("--schedule", help="Learning-rate schedule: step, cosine or constant. [default: step]"),
    click.option("--decay-every", type=int, help="Epochs between two steps of the schedule. [default: 10]"),
    click.option("--weight-decay", type=float, help="Weight decay of the optimiser. [default: 0.0001]"),
)


@click.command(short_help="Fine-tune a classifier with AdvBN.", cls=ManyValues)
@click.option(
    "--arch",
    required=True,
    metavar="SPEC",
    help="Network: resnet18/34/50/101, densenet121, efficientnet_b0, ..., or with weights: packaged:NAME, NAME=FILE.",
)
@click.option("--method", help="advbn, plain, advprop, pgd-at, advprop+advbn or pgd-at+advbn. [default: advbn]")
@click.option(
    "--augment", metavar="NAME...", multiple=True,
    help="autoaugment, fast-autoaugment, randaugment, augmix, cutmix, mixup, moex; or none. "
    "[default: none; efficientnet_b0: autoaugment]",
)  # fmt: skip
@click.option(
    "--init",
    metavar="SPEC",
    help="Weights to start from: NAME=FILE, timm:NAME=FILE, or a run folder. [default: the published ones of --arch]",
)
@click.option("--classes", type=int, help="Fresh last layer for so many classes, those of the training images.")
@click.option(
    "--cut", metavar="NAME", help="End of the front: conv2, conv3, conv4, or a module. [default: as published]"
)
@click.option("--keep-norm", is_flag=True, help="Keep the batch norm behind DenseNet's cut. [default: left out]")
@click.option("--out", type=FOLDER, required=True, help="Run folder.")
@_data_options
@_attack_options
@training_options
@_schedule_options
@overwrite_option
@json_option
def finetune(**options: Any) -> None:
    """Fine-tune the part of a classifier behind a cut, clean and AdvBN features 1:1, with auxiliary batch norm.

    Writes main.safetensors and auxiliary.safetensors, plain torchvision state dicts with one of the two batch-norm
    sets each, the best ones so far in best/, metrics.jsonl and curves.png. Given again, the same command goes on from
    its checkpoint.

    \b
    Examples:
      advbn-gen finetune --arch resnet50 --source ILSVRC2012/train --val ILSVRC2012_val --out resnet50-advbn
      advbn-gen finetune --arch resnet50 --init resnet50=augmix.pth --augment augmix --source ILSVRC2012/train \\
        --out resnet50-augmix-advbn
    """
    from downstream.request import train_fine_tuning
    from training.folder import METRICS, is_first_process

    result = train_fine_tuning(_request(options), overwrite=options["overwrite"])
    if not is_first_process(options["devices"]):
        return
    from reports.curves import draw_curves
    from training.folder import CURVES

    metrics = options["out"] / METRICS
    # A finished run whose lines were removed has nothing to draw.
    curves = draw_curves(metrics, options["out"] / CURVES) if metrics.exists() else None
    shares = ", ".join(f"{name.rpartition('_')[2]} batch norm {value:.1%}" for name, value in result.metadata.items())
    files = {name: str(path) for name, path in result.files.items()}
    lines = [f"held-out top-1: {shares}", *files.values(), *([str(curves)] if curves else [])]
    print_result({**result.metadata, **files, "curves": curves and str(curves)}, lines, as_json=options["as_json"])


def _refuse_unused(options: dict[str, Any], method_name: str) -> None:
    """Refuse options that would change nothing.

    Raises:
        UserError: one was given.
    """
    from basics.options import refuse_unused_options
    from downstream.methods import METHODS

    # An unknown method is refused where its other settings are.
    method = METHODS.get(method_name)
    without_effect = {
        "mix_share": options["mix"] is None,
        "labels": options["held_out"] is None,
        "micro_batch": method is not None and not method.statistics and method.pixels is None,
        **dict.fromkeys(_STATISTICS_OPTIONS, method is not None and not method.statistics),
        **dict.fromkeys(_PIXEL_OPTIONS, method is not None and method.pixels is None),
    }
    for name, unused in without_effect.items():
        if unused and options[name] is not None:
            settings = {"mix_share": "without --mix", "labels": "without --val"}.get(name, f"with {method_name}")
            refuse_unused_options([name], settings)


_STATISTICS_OPTIONS = ("eps", "steps", "step_size", "statistics")
_PIXEL_OPTIONS = ("pixel_eps", "pixel_steps", "pixel_step_size")
_CONFIG_OPTIONS = (
    "loaders", "epochs", "batch_size", "lr", "seed", "image_size", "device", "devices", "precision", "schedule",
    "decay_every", "weight_decay",
)  # fmt: skip


def _request(options: dict[str, Any]) -> "FineTuningRequest":
    """Return the architecture's published fine-tuning with what the user gave of it changed.

    Raises:
        UserError: an option would change nothing, or something does not exist.
    """
    import experiments
    from networks.cuts import cut_of
    from pipeline.drawn_networks import DRAWN_IMAGE_SIZE
    from sources.drawn.source import DrawnSource

    drawn = options["source"] is None
    if drawn:
        say("No --source: using the embedded drawn world.")
    arch = options["arch"] = _arch(options)
    request = experiments.finetune(
        arch,
        DrawnSource("train", DRAWN_IMAGE_SIZE) if drawn else options["source"],
        options["out"],
        cut_of(arch, options["cut"], keep_norm=options["keep_norm"]),
    )
    _refuse_unused(options, options["method"] or request.tuning.method)
    # Of the drawn world's pictures the whole shape has to be seen.
    drawn_crop, drawn_size = (_DRAWN_CROP, DRAWN_IMAGE_SIZE) if drawn else (None, None)
    tuning = replace(
        request.tuning,
        attack=replace(request.tuning.attack, **given(**{name: options[name] for name in _STRENGTH})),
        pixels=replace(request.tuning.pixels, **given(**{name: options[f"pixel_{name}"] for name in _STRENGTH})),
        augment=_augment(options["augment"], request.tuning.augment),
        **given(smallest_crop=drawn_crop) | given(smallest_crop=options["smallest_crop"]),
        **given(**{name: options[name] for name in ("method", "statistics", "micro_batch")}),
    )
    training = given(image_size=drawn_size) | given(**{name: options[name] for name in _CONFIG_OPTIONS})
    held_out = options["held_out"] or (DrawnSource("val", DRAWN_IMAGE_SIZE) if drawn else None)
    return replace(
        request,
        tuning=tuning,
        training=replace(request.training, **training),
        init=_init(options),
        held_out=held_out,
        **{name: options[name] for name in ("width", "classes", "labels", "limit", "mix")},
        **given(mix_share=options["mix_share"]),
    )


def _arch(options: dict[str, Any]) -> str:
    """Return the name of the network that `--arch` says; if it says weights, too, these are taken for `--init`.

    Raises:
        UserError: `--init` says others.
    """
    from basics.errors import UserError
    from networks.classifiers import PUBLISHED
    from networks.specs import name_in_file, split_spec

    spec: str = options["arch"]
    name, weights = split_spec(spec)
    if weights != PUBLISHED:
        if options["init"] is not None:
            raise UserError(f"--arch {spec} names its weights; leave out --init {options['init']}.")
        options["init"] = spec
    return name_in_file(Path(weights)) if name is None else name


def _augment(names: tuple[str, ...], published: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        return published
    return () if names == ("none",) else names


_DRAWN_CROP = 0.8
_STRENGTH = ("eps", "steps", "step_size")


def _init(options: dict[str, Any]) -> str | None:
    """Return the SPEC of the weights to start from; None for published ones.

    Raises:
        UserError: the drawn world has no such network.
    """
    from basics.errors import UserError
    from pipeline.drawn_networks import RECIPES, drawn_classifier

    if options["init"] is not None or options["source"] is not None:
        init: str | None = options["init"]
        return init
    arch = options["arch"]
    known = {recipe.network: encoder for encoder, recipe in RECIPES.items()}
    if arch not in known:
        raise UserError(f"The drawn world has no {arch}; give --init, or --arch with one of {', '.join(known)}.")
    return str(drawn_classifier(known[arch]))


@click.command(short_help="The AdvBN authors' checkpoint as a run folder.")
@click.option("--weights", type=FILE, required=True, help="Their file.")
@click.option("--arch", default="resnet50", show_default=True, metavar="NAME", help="The ResNet in it.")
@click.option("--out", type=FOLDER, required=True, help="A new folder.")
@json_option
def import_finetuned(weights: Path, arch: str, out: Path, as_json: bool) -> None:
    """Turn a published AdvBN checkpoint into a run folder: main.safetensors and auxiliary.safetensors.

    \b
    Example:
      advbn-gen import-finetuned --weights advbn_res50.pth.tar --out resnet50-advbn
    """
    from downstream.exports import import_published

    files = import_published(weights, arch, out)
    lines = [str(path) for path in files.values()]
    print_result({name: str(path) for name, path in files.items()}, lines, as_json=as_json)
