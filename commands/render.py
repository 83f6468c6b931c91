"""`advbn-gen render`: a data set again from its perturbation ledger."""

from typing import TYPE_CHECKING, Any

import click

from basics.errors import WorkError
from basics.progress import counted
from commands.options import (
    ADDRESS,
    FILE,
    absolute,
    absolute_address,
    json_option,
    overwrite_option,
    print_result,
    workers_options,
)

if TYPE_CHECKING:
    from pipeline.render import RenderResult


@click.command(short_help="Shards again from a ledger, without the ascent.")
@click.argument("ledger", metavar="LEDGER", type=ADDRESS)
@click.option(
    "--source",
    envvar="ADVBN_SOURCE",
    show_envvar=True,
    help="The originals: folder, tar or shards of labelled images. [default: the embedded drawn world]",
)
@click.option("--labels", type=FILE, help="Label list or devkit of a flat ILSVRC2012 folder.")
@click.option("--order", type=FILE, help="The ledger's order file, if it had one.")
@click.option(
    "--autoencoder",
    type=FILE,
    help="The ledger's autoencoder.safetensors, or its run folder. [the drawn world has its own]",
)
@click.option("--out", type=ADDRESS, metavar="P", required=True, help="Data-set folder, or address (s3://...).")
@click.option(
    "--scale",
    type=float,
    default=1.0,
    show_default=True,
    help="S in S * (delta - 1) + 1: 0 reconstructs, 0.5 shifts half as far.",
)
@click.option(
    "--manifest",
    type=ADDRESS,
    metavar="P",
    help="The original's manifest, to compare with. [default: the one beside the ledger]",
)
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps. [default: cpu for a ledger made on a CPU, else auto]")
@click.option("--precision", help="auto, fp32, tf32, bf16 or fp64. [default: the ledger's, where the device has it]")
@click.option("--threads", type=int, help="Computing threads. [default: the ledger's]")
@workers_options
@overwrite_option
@json_option
def render(**options: Any) -> None:
    """Make a data set again from its perturbation ledger, the originals and the autoencoder; no classifier is needed.

    Each original is compared with the ledger before it is used, and the result with the manifest. On the same kind of
    machine with the same software the shards are the same bytes. The same command resumes an
    interrupted rendering.

    \b
    Examples:
      advbn-gen render imagenet-advbn-vgg.h5 --source ILSVRC2012_val --labels devkit.tar.gz \\
        --autoencoder autoencoder.safetensors --out imagenet-advbn-vgg
      advbn-gen render imagenet-advbn-vgg.h5 --source ILSVRC2012_val --labels devkit.tar.gz \\
        --autoencoder autoencoder.safetensors --scale 0.5 --out imagenet-advbn-vgg-half
    """
    from pipeline.render import RenderRequest
    from pipeline.render import render as make

    request = RenderRequest(
        ledger=options["ledger"],
        source=absolute_address(options["source"] or None),
        autoencoder=absolute(options["autoencoder"]),
        labels=absolute(options["labels"]),
        order=absolute(options["order"]),
        **{name: options[name] for name in _REQUEST_FIELDS},
    )
    result = make(request, options["out"], manifest=options["manifest"], overwrite=options["overwrite"])
    print_result(result.to_json(), _lines(result), as_json=options["as_json"])
    if not result.comparison.ok:
        raise WorkError(_mismatch_message(result))


_REQUEST_FIELDS = ("scale", "device", "precision", "threads", "workers", "scheduler")


def _lines(result: "RenderResult") -> list[str]:
    run, comparison = result.run, result.comparison
    equal = {
        None: "not compared (no manifest)" if result.scale == 1 else f"not compared (scale {result.scale:g})",
        True: "equal to the manifest's",
        False: "not those of the manifest"
        + ("" if comparison.bytes_promised else ", which is not promised on this machine"),
    }[comparison.bytes_equal]
    difference = comparison.pixel_mean_difference
    return [
        f"{run.images} images in {counted(run.shards, 'shard')} ({run.made} made now, {run.seconds:.1f} s)",
        f"bytes: {equal}",
        *(
            []
            if difference is None
            else [
                f"largest difference of an image's mean: {difference:.3g} of 255 grey levels "
                f"(tolerance {comparison.tolerance:g})"
            ]
        ),
        *(str(folder) for folder in run.folders.values()),
    ]


def _mismatch_message(result: "RenderResult") -> str:
    comparison = result.comparison
    if comparison.bytes_promised and comparison.differing:
        return (
            "Software and kind of machine are those of the ledger, but these shards are not the manifest's bytes: "
            f"{', '.join(comparison.differing)}. Make them anew with --overwrite, or check the machine."
        )
    return (
        f"An image's mean is {comparison.pixel_mean_difference:.3g} grey levels away from the original run's, more "
        f"than the tolerance of {comparison.tolerance:g}; make them anew with --overwrite and the ledger's --precision."
    )
