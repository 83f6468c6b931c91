"""`advbn-gen imagenet-advbn`: the main job."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from basics.errors import UserError
from basics.progress import counted, say
from commands.options import (
    ADDRESS,
    FILE,
    MICRO_BATCH,
    absolute,
    absolute_address,
    compute_options,
    encoder_option,
    given,
    json_option,
    overwrite_option,
    print_result,
    workers_options,
)

if TYPE_CHECKING:
    from pipeline.config import GenerationConfig
    from pipeline.job import Job
    from pipeline.runners.runner import Runner

_SOURCE_VARIABLE = "ADVBN_SOURCE"


@click.command(short_help="Make ImageNet-AdvBN shards from images.")
@encoder_option
@click.option(
    "--source",
    envvar=_SOURCE_VARIABLE,
    show_envvar=True,
    help="Folder, tar or shards of labelled images, or address (s3://...). [default: the embedded drawn world]",
)
@click.option("--labels", type=FILE, help="Label list or devkit of a flat ILSVRC2012 folder.")
@click.option("--order", type=FILE, help="Text file that names the images in another order, one a line.")
@click.option(
    "--autoencoder", type=FILE, help="autoencoder.safetensors, or its run folder. [the drawn world has its own]"
)
@click.option(
    "--classifier",
    metavar="SPEC",
    help="Attacked classifier: NAME (torchvision), timm:NAME, packaged:NAME, NAME=FILE, timm:NAME=FILE, "
    "or a run folder or file of this program. [default: vgg19, resnet50 or the SPEC, after the encoder]",
)
@click.option(
    "--classifier-weights",
    metavar="F",
    help="Its weights, where the SPEC is a name: a file, or seed:N for trials. [default: the published ones]",
)
@click.option(
    "--out",
    type=ADDRESS,
    metavar="P",
    help="Data-set folder, or address (s3://...). [default: ./imagenet-advbn-ENCODER; drawn world: ./sample-...]",
)
@click.option("--eps", type=float, help="Radius of the ball around 1 for each multiplier. [default: 1.1]")
@click.option("--steps", type=int, help="Ascent steps. [default: 6]")
@click.option("--step-size", type=float, help="Length of a step. [default: 0.2]")
@click.option("--batch-size", type=int, help="Images perturbed together. [default: 32]")
@click.option("--image-size", type=int, help="Side of the images. [default: 256; the drawn world: 48]")
@click.option("--batches-per-shard", type=int, help="49 x 32 = 1,568 samples a shard. [default: 49]")
@click.option("--limit", type=int, help="Only the first N images.")
@click.option("--split", default="val", show_default=True, help="Split to read, and its name in the files.")
@compute_options
@click.option(
    "--threads", type=int, help="Computing threads a process. [default: all cores, divided among the workers]"
)
@click.option(
    "--micro-batch",
    type=MICRO_BATCH,
    default="auto",
    show_default=True,
    metavar="N|auto",
    help="Images of a batch in one pass, to save memory; statistics are the whole batch's. auto: on a CPU as many as "
    "8 images of 256 px, else the whole batch.",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the networks (torch.compile); rounding differs. Needs a C++ compiler, on a GPU Triton.",
)
@workers_options
@click.option("--reconstructed", is_flag=True, help="Also write the unperturbed reconstructions, as a second data set.")
@overwrite_option
@click.option("--dry-run", is_flag=True, help="Check everything and print the plan; write nothing.")
@click.option(
    "--estimate", is_flag=True, help="With --dry-run: time a few batches on this machine; print hours, disk and memory."
)
@json_option
def imagenet_advbn(**options: Any) -> None:
    """Stream images through an autoencoder with AdvBN inside, into verified WebDataset shards.

    Batches of 32 in ImageFolder order, never shuffled; 6 ascent steps of 0.2 within eps 1.1, as published. The
    same command resumes an interrupted run.

    \b
    Examples:
      advbn-gen imagenet-advbn --encoder vgg
      advbn-gen imagenet-advbn --encoder vgg --source ILSVRC2012_val --labels devkit.tar.gz \\
        --autoencoder autoencoder.safetensors --reconstructed
    """
    from pipeline.generation import default_name, prepared

    _require_estimable(options)
    config = _config(options)
    name = default_name(config)
    out, overwrite = options["out"] or Path(name), options["overwrite"]
    with prepared(config, out, name, scheduler=options["scheduler"], overwrite=overwrite) as (job, runner):
        if options["dry_run"]:
            _print_plan(job, options)
        else:
            _run(job, runner, options)


def _require_estimable(options: dict[str, Any]) -> None:
    """Refuse `--estimate` where nothing is timed, or where other machines than this one would work."""
    if options["estimate"] and not options["dry_run"]:
        raise UserError("--estimate only computes what a run would cost; give --dry-run as well.")
    if options["estimate"] and options["scheduler"] is not None:
        raise UserError("--estimate times this machine, not a scheduler's workers; run it on one of these.")


def _print_plan(job: "Job", options: dict[str, Any]) -> None:
    from pipeline.claim import check_outputs
    from pipeline.run import missing_shards

    check_outputs(job.datasets, job.config.source, overwrite=options["overwrite"])
    # What is overwritten is made again.
    missing = list(range(job.plan.shards)) if options["overwrite"] else missing_shards(job.datasets)
    plan = job.plan
    lines = [
        f"{plan.images} images in {counted(plan.shards, 'shard')}, {len(missing)} of them to do",
        *(f"{dataset.name} -> {dataset.folder}" for dataset in job.datasets),
    ]
    counts = {"images": plan.images, "batches": plan.batches, "shards": plan.shards, "missing": missing}
    cost = {}
    if options["estimate"]:
        from pipeline.estimate import estimate

        estimated = estimate(job, missing, overwrite=options["overwrite"])
        cost = {"estimate": estimated.to_json()}
        lines += estimated.lines()
    print_result({**counts, "identity": job.identity, **cost}, lines, as_json=options["as_json"])


def _run(job: "Job", runner: "Runner", options: dict[str, Any]) -> None:
    from pipeline.run import run

    result = run(job, runner, overwrite=options["overwrite"])
    top1 = ", ".join(f"{name} {value:.1%}" for name, value in result.top1.items())
    lines = [
        f"{result.images} images in {counted(result.shards, 'shard')} ({result.made} made now, {result.seconds:.1f} s)",
        f"top-1 of the attacked classifier: {top1}",
        *(str(folder) for folder in result.folders.values()),
    ]
    print_result(result.to_json(), lines, as_json=options["as_json"])


def _config(options: dict[str, Any]) -> "GenerationConfig":
    """Build the run's config; without a source, it uses the drawn world and its networks and says so."""
    from decoders.autoencoder import require_encoder
    from encoders import encoder_kind, file_name_of, split_encoder
    from experiments import imagenet_advbn as published
    from pipeline.drawn_networks import DRAWN_IMAGE_SIZE, drawn_networks

    encoder, encoder_weights = split_encoder(options["encoder"])
    kind = encoder_kind(encoder)
    source = os.fspath(options["source"]) if options["source"] else None
    if options["autoencoder"] is not None and _needs_weights(encoder_weights, options):
        require_encoder(options["autoencoder"], kind, str(encoder_weights))
    config = published(encoder, absolute_address(source), absolute(options["autoencoder"]))
    config = replace(
        config,
        attack=replace(config.attack, **given(**{name: options[name] for name in ("eps", "steps", "step_size")})),
        labels=absolute(options["labels"]),
        order=absolute(options["order"]),
        **_classifier(options["classifier"] or _network_of(options["encoder"]), options["classifier_weights"]),
        **{name: options[name] for name in _CONFIG_FIELDS},
        **given(**{name: options[name] for name in ("batch_size", "batches_per_shard")}),
        **given(image_size=DRAWN_IMAGE_SIZE if source is None else None) | given(image_size=options["image_size"]),
    )
    if source is not None:
        return config
    say(f"No --source: using the embedded drawn world; the data set is called sample-advbn-{file_name_of(encoder)}.")
    named = options["classifier"] or _network_of(options["encoder"])
    own_classifier = options["classifier_weights"] is None and named is None
    if config.autoencoder is not None and not own_classifier:
        return config
    own = drawn_networks(config.encoder)
    return replace(
        config,
        autoencoder=config.autoencoder or str(own.autoencoder),
        classifier_weights=str(own.classifier) if own_classifier else config.classifier_weights,
    )


def _needs_weights(weights: str | None, options: dict[str, Any]) -> bool:
    """Return whether the autoencoder has to be around the weights of the encoder's network that a SPEC says.

    A network's name alone says no file, and the autoencoder holds the encoder's weights. The published ones are only
    meant, and needed, where the network is attacked with them as well.
    """
    from networks.classifiers import PUBLISHED

    attacked = options["classifier"] is None and options["classifier_weights"] is None
    return weights is not None and (weights != PUBLISHED or attacked)


def _network_of(encoder: str) -> str | None:
    """Return the SPEC in an encoder's name, whose network is then the one attacked; None if there is none."""
    return encoder.rpartition("@")[0] or None


_CONFIG_FIELDS = (
    "limit", "split", "device", "precision", "threads", "workers", "micro_batch", "compiled", "reconstructed",
)  # fmt: skip


def _classifier(spec: str | None, weights: str | None) -> dict[str, Any]:
    """Return the name and the weights of the attacked classifier from `--classifier` and `--classifier-weights`."""
    from networks.classifiers import PUBLISHED
    from networks.specs import split_spec

    name, own = (None, PUBLISHED) if spec is None else split_spec(spec)
    if own != PUBLISHED and weights is not None:
        raise UserError(f"--classifier {spec} names its weights; leave out --classifier-weights {weights}.")
    return {"classifier": name, "classifier_weights": _weights(weights) or own}


def _weights(weights: str | None) -> str | None:
    """Return weights as the config has them: a file by its absolute path, all else as it is."""
    from networks.classifiers import PUBLISHED, SEED_PREFIX

    if weights is None or weights.startswith(SEED_PREFIX) or weights == PUBLISHED:
        return weights
    return absolute(Path(weights))
