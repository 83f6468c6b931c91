"""Cost of rendering relative to generation: the same batches made by the ascent and from its ledger, alternately.

    python -m benchmarks.render --source IMAGES --image-size 256 --batch-size 8 --batches 1

Both make whole shards, with decoding, encoding, hashing and writing.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.workload import run_text, workload, workload_options
from pipeline.config import GenerationConfig
from pipeline.dataset.layout import LEDGER
from pipeline.job import Job, prepare, products_of
from pipeline.render import RenderRequest, render_job
from pipeline.renderable import read_renderable
from pipeline.run import run


@click.command()
@workload_options
@click.option("--rounds", default=2, show_default=True)
def main(rounds: int, **settings: Any) -> None:
    """Print the ratio of each round and the median; fail if the bytes differ."""
    with tempfile.TemporaryDirectory() as folder:
        config = workload(Path(folder), **settings)
        ratios = [_round(config, Path(folder) / str(number)) for number in range(rounds)]
    click.echo(f"median ratio {statistics.median(ratios):.3f}, equal bytes")


def _round(config: GenerationConfig, folder: Path) -> float:
    out, again = folder / "out", folder / "rendered"
    job = prepare(config, products_of(config, out, "benchmark-advbn"))
    generating = _seconds(job)
    request = RenderRequest(
        ledger=out / LEDGER, source=config.source, autoencoder=config.autoencoder, device=config.device
    )
    rendering = _seconds(render_job(request, read_renderable(request.ledger), again))
    if _bytes(out) != _bytes(again):
        raise click.ClickException("the bytes of the rendered shards differ")
    ratio = rendering / generating
    click.echo(f"generated in {generating:.2f} s, rendered in {rendering:.2f} s, ratio {ratio:.3f} ({run_text(job)})")
    return ratio


def _seconds(job: Job) -> float:
    start = time.perf_counter()
    run(job)
    return time.perf_counter() - start


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*folder.glob("*.tar"), *folder.glob("stats/*")]}


if __name__ == "__main__":
    main()
