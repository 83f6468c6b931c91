"""`advbn-gen abnn ...`: the experiments of the second paper."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.abnn_table import table
from commands.classifier import held_out_options, train_and_print
from commands.options import (
    FOLDER,
    AliasedOption,
    ManyValues,
    checkpoint_activations_option,
    clip_data_options,
    clip_training_options,
    combined_options,
    compute_options,
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
    from abnn.benchmarks import Benchmark
    from abnn.options import HeldOutOptions
    from sources.base import Source
    from training.request import ClipOptions


@click.group(short_help="Adaptive batch normalisation networks: train, attack, tabulate.")
def abnn() -> None:
    """Adaptive batch normalisation networks (ABNN), the second paper's experiments.

    \b
    Examples, in this order:
      advbn-gen abnn pretrain --data imagenette --out substitute
      advbn-gen abnn train --task cifar10 --defence abnn --substitute substitute --data cifar10 --out abnn
      advbn-gen abnn attack --checkpoint abnn --attack pgd --data cifar10
      advbn-gen abnn table abnn
    """


@abnn.command(short_help="Train a substitute network.")
@click.option(
    "--task", default="cifar10", show_default=True, metavar="NAME", help="Benchmark that it is for: cifar10 or ucf101."
)
@click.option(
    "--data",
    metavar="P",
    help="Images or clips of another data set than the target's. [default: ucf101: drawn ones]",
)
@held_out_options
@click.option(
    "--arch", metavar="NAME", help="Any classifier, also timm:NAME. [default: vgg19_bn; ucf101: hara_resnet18]"
)
@click.option("--image-size", type=int, help="Side of the crops. [default: 32; ucf101: 112]")
@clip_training_options
@click.option("--out", type=FOLDER, required=True, help="Run folder.")
@training_options
@overwrite_option
@json_option
def pretrain(out: Path, as_json: bool, **options: Any) -> None:
    """Train a classifier from scratch that serves as a substitute, where no published weights can be had.

    As `train-classifier`, with the paper's network and an image size that fits the benchmark. For clips other networks
    than the default are hara_resnet18_b, hara_resnext101 and r3d_18, and a network may also be what a target starts
    from (`abnn train --init`). Given again, the same command goes on from its checkpoint.

    \b
    Examples:
      advbn-gen abnn pretrain --data imagenette --out substitute
      advbn-gen abnn pretrain --task ucf101 --data kinetics --out substitute
    """
    import experiments
    from abnn.benchmarks import benchmark_of
    from basics.options import refuse_unused_options

    benchmark = benchmark_of(options["task"], experiments.BENCHMARKS)
    source, held_out = _data_of(benchmark, options, motions="pretraining")
    make = experiments.abnn_substitute if benchmark.media == "image" else experiments.abnn_clip_substitute
    request = make(source, out)
    if benchmark.media == "clip":
        unused = [name for name in ("labels", "smallest_crop") if options[name] is not None]
        refuse_unused_options(unused, f"with --task {benchmark.name}")
    request = replace(
        request,
        classifier=replace(request.classifier, **given(arch=options["arch"])),
        clips=_clips_of(request.clips, options),
        held_out=held_out,
    )
    train_and_print(request, options, as_json=as_json)


def _data_of(benchmark: "Benchmark", options: Mapping[str, Any], motions: str) -> "tuple[str | Source, Source | None]":
    """Return the source of training samples, and that of held-out ones; None if the first is an address with both.

    Args:
        benchmark: the benchmark of the command.
        options: options of the command.
        motions: which drawn clips stand in for clips that are not given.

    Raises:
        UserError: images are not given, or options are that do not fit.
    """
    from basics.errors import UserError
    from basics.options import refuse_unused_options
    from basics.progress import say
    from sources.drawn.clips import DrawnClips

    if options["data"] is not None:
        return options["data"], None
    if benchmark.media == "image":
        raise UserError(f"The task {benchmark.name} has no data; give its images with --data.")
    unused = [name for name in ("split_lists", "split_number", "labels") if options.get(name) is not None]
    refuse_unused_options(unused, "without --data")
    say("No clips are given with --data: drawn ones are used, whose classes are motions.")
    return DrawnClips("train", motions=motions), DrawnClips("test", motions=motions)


def _clips_of(clips: "ClipOptions | None", options: Mapping[str, Any]) -> "ClipOptions | None":
    """Return the settings of clips, with the options that were given.

    Raises:
        UserError: it has no clips, but options for them are given.
    """
    from basics.options import refuse_unused_options

    options_of = {"frames": "frames", "lists": "split_lists", "number": "split_number", "cache": "cache"}
    if clips is None:
        unused = [option for option in options_of.values() if options[option] is not None]
        unused += ["checkpoint_activations"] if options["checkpoint_activations"] else []
        refuse_unused_options(unused, f"with --task {options['task']}")
        return None
    values = {field: options[option] for field, option in options_of.items()}
    return replace(clips, **given(**values), checkpoint_activations=options["checkpoint_activations"])


_layer_options = combined_options(
    click.option(
        "--statistics", metavar="WHICH", help="Substitute's statistics: scalar, batch or channel. [default: scalar]"
    ),
    click.option("--encoder", metavar="WHICH", help="Substitute's feature: pooled or flattened. [default: pooled]"),
    click.option("--blocks", metavar="NAME...", multiple=True, help="Modules of the target. [default: its blocks]"),
    click.option("--taps", metavar="NAME...", multiple=True, help="Modules of the substitute. [default: its blocks]"),
)
_pixel_options = combined_options(
    click.option(
        "--eps", callback=fraction, metavar="X", help="Radius of the attack's ball. [default: the benchmark's]"
    ),
    click.option("--steps", type=int, help="Steps of the attack. [default: the benchmark's]"),
    click.option("--step-size", callback=fraction, metavar="X", help="Length of a step. [default: the benchmark's]"),
    click.option("--norm", help="linf or l2. [default: linf]"),
)
_PIXEL_FIELDS = ("eps", "steps", "step_size", "norm")


@abnn.command(short_help="Train a network, with a defence or without.", cls=ManyValues)
@click.option("--task", required=True, metavar="NAME", help="Benchmark: cifar10 or ucf101.")
@click.option("--defence", required=True, metavar="NAME", help="none, abnn, pgd-at, or oudefend (of clips).")
@click.option(
    "--data",
    metavar="P",
    help="Folder with train/ and test/, or the published files. [default: ucf101: drawn clips]",
)
@click.option(
    "--substitute",
    metavar="SPEC",
    help="The frozen network of ABNN: NAME (torchvision), timm:NAME, packaged:NAME, NAME=FILE, or a run folder. "
    "[default: vgg19_bn, published weights; ucf101: none, give one]",
)
@click.option("--arch", metavar="NAME", help="Another target than the benchmark's.")
@click.option(
    "--init", metavar="SPEC", help="Weights that the target starts from: NAME=FILE, or a run folder. [default: fresh]"
)
@click.option(
    "--normalisation",
    metavar="NAME",
    help="How the target has the colours of clips prepared: activitynet, kinetics, torchvision or none. "
    "[default: what is usual for it]",
)
@click.option(
    "--substitute-normalisation", metavar="NAME", help="The same of the substitute. [default: what is usual for it]"
)
@click.option("--image-size", type=int, help="Resize images to this side. [default: the benchmark's, not resized]")
@_layer_options
@_pixel_options
@micro_batch_option
@clip_training_options
@click.option("--weight-decay", type=float, help="Weight decay of the optimiser. [default: the benchmark's]")
@click.option(
    "--decay-every",
    type=int,
    help="Epochs between two steps of the learning rate. [default: 7; cifar10: no steps, a cosine]",
)
@loaders_option
@click.option("--out", type=FOLDER, required=True, help="Run folder.")
@training_options
@overwrite_option
@json_option
def train(out: Path, as_json: bool, **options: Any) -> None:
    """Train a benchmark's network: without defence, with ABNN beside a frozen substitute, or under PGD (pgd-at).

    For clips there is OUDefend as well: a block in the network that removes perturbations, trained under PGD.

    Writes model.safetensors (the substitute is in it), metrics.jsonl, curves.png and cost.json: what a training step
    costs beside a plain one. Given again, the same command goes on from its checkpoint.

    \b
    Examples:
      advbn-gen abnn train --task cifar10 --defence none --data cifar10 --out plain
      advbn-gen abnn train --task cifar10 --defence abnn --data cifar10 --out abnn
      advbn-gen abnn train --task ucf101 --defence abnn --substitute hara_resnet18=FILE --data UCF-101 --out abnn
    """
    import experiments
    from abnn.benchmarks import benchmark_of
    from abnn.layer import LayerConfig
    from abnn.options import PixelOptions
    from abnn.request import train_defence
    from training.folder import METRICS, is_first_process

    benchmark = benchmark_of(options["task"], experiments.BENCHMARKS)
    source, held_out = _data_of(benchmark, options, motions="target")
    request = experiments.abnn(benchmark, source, out, options["defence"])
    pixels = PixelOptions(**{name: options[name] for name in _PIXEL_FIELDS})
    request = replace(
        request,
        layer=LayerConfig(**given(statistics=options["statistics"], encoder=options["encoder"])),
        attack=benchmark.ball(pixels) if pixels.given() else None,
        training=replace(request.training, **given(**{name: options[name] for name in _CONFIG_OPTIONS})),
        resize=options["image_size"] is not None and benchmark.media == "image",
        clips=_clips_of(request.clips, options),
        held_out=held_out,
        colours=options["normalisation"],
        substitute_colours=options["substitute_normalisation"],
        **{name: options[name] for name in ("substitute", "arch", "init", "blocks", "taps", "limit", "micro_batch")},
        **given(width=options["width"]),
    )
    result = train_defence(request, overwrite=options["overwrite"])
    if not is_first_process(options["devices"]):
        return
    path, top1 = result.files["model"], result.metadata["held_out_top1"]
    from reports.curves import draw_curves
    from training.folder import CURVES

    metrics = out / METRICS
    if metrics.exists():
        # A finished run whose lines were removed has nothing to draw.
        draw_curves(metrics, out / CURVES)
    lines = [f"top-1 on test images, not attacked: {top1:.1%}", str(path)]
    print_result({"model": str(path), "held_out_top1": top1}, lines, as_json=as_json)


_CONFIG_OPTIONS = (
    "loaders", "epochs", "batch_size", "lr", "weight_decay", "decay_every", "seed", "image_size", "device", "devices",
    "precision",
)  # fmt: skip


def _held_out_options(options: Mapping[str, Any]) -> "HeldOutOptions":
    from abnn.options import HeldOutOptions

    named = {name: options[name] for name in ("split_lists", "split_number", "cache")}
    return HeldOutOptions(**named, checkpoint_activations=options["checkpoint_activations"] or None)


@abnn.command(short_help="Attack trained networks.", cls=ManyValues)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=FOLDER,
    metavar="DIR...",
    multiple=True,
    required=True,
    help="Run folders of `abnn train`.",
)
@click.option(
    "--attack",
    "attacks",
    metavar="NAME...",
    multiple=True,
    required=True,
    help="clean, pgd, pgd-50, adaptive, transfer, roa, roa-gradient, roa-random or autoattack.",
)
@click.option("--data", metavar="P", help="What holds the test images, or clips. [default: for clips, drawn ones]")
@clip_data_options
@checkpoint_activations_option
@click.option(
    "--surrogate",
    cls=AliasedOption,
    alias="--twin",
    type=FOLDER,
    help="Run folder of the network whose gradients `transfer` uses.",
)
@_pixel_options
@click.option("--restarts", type=int, help="Random starts of PGD. [default: 1; pgd-50: 5]")
@click.option("--area", type=float, help="Share of the image that the rectangle covers. [default: 0.1]")
@click.option("--rectangle-steps", type=int, help="Steps inside the rectangle. [default: 5]")
@click.option(
    "--rectangle-step-size", callback=fraction, metavar="X", help="Length of a step inside it. [default: 70/255]"
)
@click.option("--stride", type=int, help="Pixels between positions tried. [default: a quarter of the rectangle]")
@click.option("--colour", type=float, help="Grey value of the rectangle at the start, 0 to 1. [default: 0.5]")
@click.option("--fixed-rectangle", is_flag=True, help="One position for all frames, and not one for each.")
@click.option("--cut-shortcut", is_flag=True, help="Cut gradients in shortcuts without weights, as published.")
@click.option("--limit", type=int, help="Only so many images or clips, evenly spread.")
@click.option("--batch-size", type=int, help="Images at a time. [default: 250; clips: 8]")
@micro_batch_option
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of random starts and positions.")
@click.option("--out", type=FOLDER, help="Folder of the results. [default: attacks/ in each run folder]")
@click.option("--overwrite", is_flag=True, help="Replace results of the same names.")
@compute_options
@json_option
def attack(checkpoints: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Attack networks of `abnn train`, white box through all of their parts, and print their accuracies.

    `pgd` is the paper's attack. Leaves results.jsonl, and samples.h5 with a value for each image: classified correctly
    or not; of clips also a few attacked ones, for `report abnn`. Given again, the same command goes on; attacks in the
    same ball are joined into `worst`, where an image counts as correct only if none of them worked.

    \b
    Examples:
      advbn-gen abnn attack --checkpoint plain abnn --attack clean pgd pgd-50 adaptive roa --data cifar10
      advbn-gen abnn attack --checkpoint video --attack clean pgd roa-random --data UCF-101 --micro-batch 1
    """
    from abnn.attacking import AttackRequest, attack_all
    from abnn.options import PixelOptions, RectangleOptions
    from experiments import BENCHMARKS

    rectangle = {name: options[name] for name in ("area", "stride", "colour")}
    rectangle |= {name: options[f"rectangle_{name}"] for name in ("steps", "step_size")}
    rectangle["per_frame"] = False if options["fixed_rectangle"] else None
    request = AttackRequest(
        checkpoints=checkpoints, attacks=options["attacks"], data=options["data"], out=options["out"],
        benchmarks=BENCHMARKS,
        pixels=PixelOptions(**{name: options[name] for name in _PIXEL_FIELDS}),
        rectangle=RectangleOptions(**rectangle),
        clips=_held_out_options(options),
        **{name: options[name] for name in _ATTACK_FIELDS},
    )  # fmt: skip
    rows = attack_all(request)
    lines = [f"{row['model']}  {row['attack']}  {row['accuracy']:.1%} of {row['n']}" for row in rows]
    print_result({"rows": rows}, lines, as_json=as_json)


_ATTACK_FIELDS = (
    "restarts", "surrogate", "cut_shortcut", "limit", "batch_size", "micro_batch", "seed", "device", "precision",
    "overwrite",
)  # fmt: skip


@abnn.command(short_help="Checks that accuracies under attack can be trusted.")
@click.option("--checkpoint", type=FOLDER, required=True, help="Run folder of `abnn train`.")
@click.option("--data", metavar="P", help="What holds the test images, or clips. [default: for clips, drawn ones]")
@clip_data_options
@checkpoint_activations_option
@click.option(
    "--surrogate",
    cls=AliasedOption,
    alias="--twin",
    type=FOLDER,
    help="Run folder of another network, whose gradients the black-box check uses.",
)
@click.option("--limit", type=int, default=100, show_default=True, help="Only so many samples, evenly spread.")
@micro_batch_option
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of random starts and noise.")
@click.option("--out", type=FOLDER, help="Folder of the picture. [default: attacks/ in the run folder]")
@compute_options
@json_option
def sanity(out: Path | None, as_json: bool, **options: Any) -> None:
    """Check that a network's accuracy under attack can be trusted: masked gradients would fail here.

    Prints a list of passes and fails (exit code 1 if one failed) and leaves surface.png, the loss around some images.

    \b
    Example:
      advbn-gen abnn sanity --checkpoint abnn --surrogate plain --data cifar10
    """
    from abnn.results import RESULTS_FOLDER
    from abnn.sanity_run import SanityRequest, run_sanity_checks
    from basics.errors import WorkError
    from experiments import BENCHMARKS
    from reports.surface import SURFACE, draw_surface, require_own_picture

    folder = out or options["checkpoint"] / RESULTS_FOLDER
    fields = {name: options[name] for name in ("checkpoint", "data", "surrogate", "limit", "micro_batch", "seed")}
    request = SanityRequest(
        **fields, device=options["device"], precision=options["precision"], clips=_held_out_options(options),
        benchmarks=BENCHMARKS,
    )  # fmt: skip
    checks, surface = run_sanity_checks(request, lambda: require_own_picture(folder))
    picture = draw_surface(surface, folder / SURFACE)
    # Programs that read this JSON expect the numbers under `told`.
    rows = [{"name": each.name, "passed": each.passed, "told": each.numbers} for each in checks]
    lines = [f"{'pass' if each.passed else 'FAIL'}  {each.name}: {each.numbers}" for each in checks]
    print_result({"checks": rows, "surface": str(picture)}, [*lines, str(picture)], as_json=as_json)
    failed = [each.name for each in checks if not each.passed]
    if failed:
        raise WorkError(f"{len(failed)} of {len(checks)} checks failed ({'; '.join(failed)}).")


abnn.add_command(table)
