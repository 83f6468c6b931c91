"""`advbn-gen sample-data`: the drawn world on disk."""

from pathlib import Path

import click

from commands.options import FOLDER, json_option, print_result


@click.command(short_help="Draw the embedded world to disk.")
@click.argument("out", metavar="OUT", type=FOLDER)
@click.option("--size", type=int, default=64, show_default=True, help="Side of the images in pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes.")
@json_option
def sample_data(out: Path, size: int, seed: int, as_json: bool) -> None:
    """Draw a labelled data set: the shape is the label; colours, textures, position and size are style.

    Writes train/ and val/ as class folders, and four test sets of shifted images in the layouts of the real ones:
    imagenet-c/ (corruptions), imagenet-instagram/ (colour filters), imagenet-sketch/ and imagenet-style/. The same
    command resumes an interrupted drawing.

    \b
    Example:
      advbn-gen sample-data drawn
    """
    from basics.progress import progress
    from sources.drawn.world import world_counts, write_world

    with progress("draw", sum(world_counts().values()), "images") as advance:
        counts = write_world(out, size=size, seed=seed, progress=lambda _done, _total: advance())
    lines = [f"{name}: {count} images" for name, count in counts.items()]
    print_result({"out": str(out), **counts}, [*lines, str(out)], as_json=as_json)
