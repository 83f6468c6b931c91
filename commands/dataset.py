"""`advbn-gen verify`, `info` and `export`: commands for finished data sets."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from basics.errors import UserError, WorkError
from basics.progress import counted, say
from commands.options import ADDRESS, FILE, FOLDER, absolute_address, indented, json_option, print_result

if TYPE_CHECKING:
    from basics.paths import AnyPath


@click.command(short_help="Check every shard; --repair makes damaged ones again.")
@click.argument("folder", metavar="DIR", type=ADDRESS)
@click.option("--repair", is_flag=True, help="Make damaged parts again from source and weights.")
@click.option("--quick", is_flag=True, help="Compare sizes, and checksums that an object store keeps; read no shard.")
@click.option("--source", help="With --repair: where the images are now, if they have moved.")
@click.option("--labels", type=FILE, help="With --repair: where the label list or devkit is now.")
@click.option("--order", type=FILE, help="With --repair: where the order file is now.")
@click.option("--autoencoder", type=FILE, help="With --repair: where the autoencoder's file or folder is now.")
@click.option(
    "--classifier-weights", type=FILE, help="With --repair: where the attacked classifier's file or folder is now."
)
@click.option("--ledger", help="With --repair of a rendered data set: where its ledger is now.")
@json_option
def verify(folder: "AnyPath", *, repair: bool, quick: bool, as_json: bool, **addresses: str | Path | None) -> None:
    """Reopen every shard of a data set: counts, checksums, members, labels, ledger.

    DIR may be an address, such as s3://bucket/imagenet-advbn-vgg; with --quick no shard is downloaded.

    \b
    Examples:
      advbn-gen verify imagenet-advbn-vgg --repair
      advbn-gen verify s3://bucket/imagenet-advbn-vgg --quick
      advbn-gen verify imagenet-advbn-vgg --repair --source /new/folder/ILSVRC2012_val
    """
    from networks.specs import weights_file
    from pipeline.dataset.checks import find_problems
    from pipeline.repair import repair as make_again

    if isinstance(weights := addresses.get("classifier_weights"), Path):
        addresses["classifier_weights"] = weights_file(weights)
    moved = {name: absolute_address(str(address)) for name, address in addresses.items() if address}
    if moved and not repair:
        raise UserError(f"--{next(iter(moved)).replace('_', '-')} is only for a repair; give --repair as well.")
    problems = found = find_problems(folder, quick=quick)
    if problems and repair:
        for problem in problems:
            say(f"repairing: {problem.text}")
        make_again(folder, problems, moved)
        problems = find_problems(folder, quick=quick)
    texts = [problem.text for problem in problems]
    repaired = [problem.text for problem in found] if repair and not problems else []
    lines = texts or [
        f"{folder}: all right" + (f" after the repair of {counted(len(repaired), 'problem')}" if repaired else "")
    ]
    print_result({"ok": not problems, "problems": texts, "repaired": repaired}, lines, as_json=as_json)
    if problems:
        raise WorkError(
            f"{counted(len(problems), 'problem')} in {folder}; `advbn-gen verify --repair` makes damaged parts again."
        )


@click.command(short_help="What a data set, checkpoint or ledger is.")
@click.argument("path", metavar="PATH", type=ADDRESS, required=False)
@click.option("--system", is_flag=True, help="Describe this machine instead: versions, devices, threads.")
@json_option
def info(path: "AnyPath | None", system: bool, as_json: bool) -> None:
    """Describe what a data set, an autoencoder, a classifier or a ledger is and how it was made.

    \b
    Examples:
      advbn-gen info imagenet-advbn-vgg
      advbn-gen info --system
    """
    if (path is None) != system:
        raise UserError("Give either the path of what is to be described, or --system.")
    if path is None:
        from basics.system import describe_system

        description = describe_system()
    else:
        from pipeline.info import describe

        description = describe(path)
    print_result(description, indented(description), as_json=as_json)


@click.command(short_help="Shards -> a folder of class folders.")
@click.argument("folder", metavar="DIR", type=ADDRESS)
@click.argument("out", metavar="OUT", type=FOLDER)
@json_option
def export(folder: "AnyPath", out: Path, as_json: bool) -> None:
    """Unpack a data set into class folders (torchvision's ImageFolder); resumes if it was interrupted.

    \b
    Example:
      advbn-gen export imagenet-advbn-vgg imagenet-advbn-vgg-images
    """
    from pipeline.export import export as unpack

    images = unpack(folder, out)
    print_result({"images": images, "out": str(out)}, [f"{images} images in {out}"], as_json=as_json)
