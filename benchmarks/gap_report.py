"""Time and memory that a large gap report takes, and the size of its page.

    python -m benchmarks.gap_report --samples 50000 --models 14

Predictions are drawn from a seed, so no network runs; the work is the same as with real predictions.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click

from basics.memory import peak_memory
from downstream.gap import ROLES, GapInputs
from downstream.predictions import DataColumns, PredictionFile, ScoredData
from downstream.result_store import PREDICTIONS
from reports.gap_page import write_gap_report
from reports.page import HTML
from tests.reports.synthetic import synthetic_inputs, synthetic_samples

MOST_MEGABYTES = 15
"""Size that the page must not reach."""


@click.command()
@click.option("--samples", default=50_000, show_default=True)
@click.option("--models", default=14, show_default=True)
@click.option("--gallery", default=48, show_default=True)
def main(samples: int, models: int, gallery: int) -> None:
    """Print seconds, peak memory of the whole process and the sizes of the files; fail if the page is too large."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = synthetic_inputs(samples, models)
        store = _stored(Path(folder), inputs)
        pictures = synthetic_samples(inputs, gallery)
        start = time.perf_counter()
        scored = {pair: store.scored(*pair) for pair in inputs.scored}
        write_gap_report(Path(folder), replace(inputs, scored=scored), pictures, picture_side=192)
        seconds = time.perf_counter() - start
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in sorted(Path(folder).iterdir()))
        page = (Path(folder) / HTML).stat().st_size / 1e6
    peak = peak_memory() / 2**30
    click.echo(f"{samples} samples, {models} models: {seconds:.1f} s, peak memory {peak:.2f} GiB; {sizes}")
    if page >= MOST_MEGABYTES:
        raise click.ClickException(f"the page has {MOST_MEGABYTES} MB or more")


def _stored(folder: Path, inputs: GapInputs) -> PredictionFile:
    """Write the predictions as scoring does."""
    store = PredictionFile(folder / PREDICTIONS)
    for role in ROLES:
        metadata = {"data": role, "data_fingerprint": "", "samples": len(inputs.keys)}
        columns = DataColumns(metadata=metadata, keys=list(inputs.keys), label_N=inputs.label_N)
        store.write(ScoredData(data=columns, scored=[inputs.scored[role, model] for model in inputs.models]))
    return store


if __name__ == "__main__":
    main()
