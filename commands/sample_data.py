"""`advbn-gen sample-data`: the drawn world on disk."""

from pathlib import Path

import click

from commands.options import FOLDER, json_option, print_result


@click.command(short_help="Draw the embedded world to disk.")
@click.argument("out", metavar="OUT", type=FOLDER)
@click.option("--size", type=int, default=64, show_default=True, help="Side of the images in pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--clips", is_flag=True, help="Draw clips, whose label is the motion, instead of images.")
@json_option
def sample_data(out: Path, size: int, seed: int, clips: bool, as_json: bool) -> None:
    """Draw a labelled data set: the shape is the label; colours, textures, position and size are style.

    Writes train/ and val/ as class folders, and five test sets of shifted images in the layouts of the real ones:
    imagenet-c/ (corruptions), imagenet-instagram/ (colour filters), imagenet-sketch/, imagenet-style/ and cue-conflict/
    (the shape of one class filled with those of another). With --clips it writes clips/ and clips-pretraining/, two
    data sets of different motions, each with train/ and test/. The same command resumes an interrupted drawing.

    \b
    Examples:
      advbn-gen sample-data drawn
      advbn-gen sample-data drawn --clips
    """
    from basics.progress import progress
    from sources.drawn.world import CLIP_SETS, WORLD_SETS, world_counts, write_world

    sets, unit = (CLIP_SETS, "clips") if clips else (WORLD_SETS, "images")
    with progress("draw", sum(world_counts(sets).values()), unit) as advance:
        counts = write_world(out, size=size, seed=seed, sets=sets, progress=lambda _done, _total: advance())
    lines = [f"{name}: {count} {unit}" for name, count in counts.items()]
    print_result({"out": str(out), **counts}, [*lines, str(out)], as_json=as_json)
