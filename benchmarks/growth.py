"""Time and peak memory of the main job and of scoring, as one setting grows and the others stay.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.growth --plot growth.png

Each point is a process of its own, which makes one shard, or scores models. Its time is the best of some rounds of this
work, without the start of the process and the loading of networks; the busy time is what the process computed for it,
over all threads, to which other work on the machine adds less. Its memory is the peak of the process during the work
(of tensors, on a GPU), with libraries and weights, after what loading took in passing was given back.

A table is printed, and for each setting how time and memory grow between its last two points: with an exponent of 1
doubling the setting (of an image's side: its pixels) doubles them, with 0 they stay. What does not depend on the
setting, such as weights, makes exponents smaller. The slopes beside them are without it: where that of the last two
points is that of the two before, growth is linear.
"""

import gc
import math
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import torch
from matplotlib.figure import Figure

from attacks.statistics import AdvBNConfig
from basics.allocation import give_back_freed_memory
from basics.compute import available_cores, choose_compute
from basics.memory import peak_memory
from benchmarks.timing import seconds_of
from benchmarks.workload import whole_shard, workload
from downstream.scoring import ScoringConfig, predict, wanted_score
from downstream.testset import open_test_set
from networks.specs import load_model
from pipeline.job import Product, prepare
from pipeline.worker import use_threads
from tests.support import image_folder

CLASSES = ("a", "b")
UNITS = {
    "images": "image", "batch": "image of a batch", "image-size": "1,000 pixels", "steps": "step",
    "micro-batch": "image of a micro-batch", "models": "model",
}  # fmt: skip
"""Settings that grow -> the unit in which their growth is given; of the size of images, the pixels of one."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one process works on."""

    source: Path = Path()
    """Folder of the images."""
    images: int
    """Images in the shard, or that are scored."""
    batch: int
    """Images in a batch."""
    image_size: int
    """Side of the images of the shard, in pixels."""
    steps: int
    """Ascent steps."""
    micro_batch: int | None
    """Images in one pass of the networks; None passes a batch as a whole."""
    models: int
    """Models that are scored; 0 makes a shard instead."""
    encoder: str
    """Encoder."""
    width: float
    """Scale of the autoencoder's channels."""
    classifier: str | None
    """Attacked network; None takes the encoder's own."""
    scored: str
    """Network of the models that are scored."""
    device: str
    """Device."""
    rounds: int
    """How often the work is done; the best time counts."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a point took."""

    seconds: float
    """Shortest time of the work."""
    busy_seconds: float
    """Shortest time that the process computed for it, over all of its threads."""
    gibibytes: float
    """Peak memory."""


def measure(point: Point) -> Measured:
    """Do the work of a point in this process."""
    on_gpu = choose_compute(point.device, "auto").device.type == "cuda"
    with tempfile.TemporaryDirectory() as name:
        work = _scoring(point) if point.models else _generation(point, Path(name))
        _forget_peak(on_gpu=on_gpu)
        timed = []
        for _ in range(point.rounds):
            busy = time.process_time()
            timed.append((seconds_of(work, point.device), time.process_time() - busy))
        peak = _peak_bytes(on_gpu=on_gpu)
    seconds, busy_seconds = map(min, zip(*timed, strict=True))
    return Measured(seconds=seconds, busy_seconds=busy_seconds, gibibytes=peak / 2**30)


def _generation(point: Point, folder: Path) -> Callable[[], object]:
    """Return a function that makes the shard in a new folder each time."""
    config = workload(
        folder, encoder=point.encoder, batches=point.images // point.batch, batch_size=point.batch,
        width=point.width, source=str(point.source), classifier=point.classifier, image_size=point.image_size,
        attack=AdvBNConfig(steps=point.steps), micro_batch=point.micro_batch, device=point.device,
    )  # fmt: skip
    job = prepare(config, (Product(folder=folder / "out", name="benchmark", perturbed=True),))
    numbers = count()
    return lambda: whole_shard(job, folder / f"shard{next(numbers)}")


def _scoring(point: Point) -> Callable[[], object]:
    """Return a function that scores the models in one pass over the images."""
    use_threads(available_cores())  # as many as a shard is made with
    compute = choose_compute(point.device, "auto")
    data = open_test_set("data", str(point.source), limit=point.images)
    models = [load_model(f"{point.scored}=seed:{number}") for number in range(point.models)]
    rows = [dict(wanted_score(f"model{number}", model, data, compute).row) for number, model in enumerate(models)]
    pairs = list(zip(rows, models, strict=True))
    return partial(predict, pairs, data, compute, ScoringConfig(batch_size=point.batch))


def _forget_peak(*, on_gpu: bool) -> None:
    """Give back what is free, and begin to measure the peak of the memory anew, where the system can."""
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    if sys.platform == "linux":
        gc.collect()
        give_back_freed_memory()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(*, on_gpu: bool) -> int:
    """Return the peak of the memory, of tensors if they are on a GPU."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1]) * 1024
    return peak_memory()


def in_own_process(point: Point) -> Measured:
    """Measure a point in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, point).result()


Curve = list[tuple[int, Measured]]
"""Values of one setting in rising order, and what they took."""


@click.command()
@click.option("--vary", multiple=True, type=click.Choice(list(UNITS)), help="Settings that grow. [default: all]")
@click.option("--factors", default="1,2,4", show_default=True, help="What the base is multiplied by, in rising order.")
@click.option("--base-images", default=8, show_default=True, help="As many as the largest batch, at least.")
@click.option("--base-batch", default=8, show_default=True, help="Images in a batch.")
@click.option("--base-image-size", default=64, show_default=True)
@click.option("--base-steps", default=2, show_default=True)
@click.option("--base-micro-batch", default=2, show_default=True, help="Where it grows; else batches pass as a whole.")
@click.option("--base-models", default=1, show_default=True)
@click.option("--encoder", default="vgg", show_default=True)
@click.option("--width", default=1.0, show_default=True, help="Scale of the autoencoder's channels.")
@click.option("--classifier", help="Attacked torchvision network. [default: the encoder's own]")
@click.option("--scored", default="resnet18", show_default=True, help="torchvision network that is scored.")
@click.option("--rounds", default=2, show_default=True, help="Of each point; the best time counts.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="File for a plot.")
def main(vary: tuple[str, ...], factors: str, plot: Path | None, **options: Any) -> None:
    """Print a table of all points, and how each setting's time and memory grow; optionally plot them."""
    base = {setting: options.pop(f"base_{setting.replace('-', '_')}") for setting in UNITS}
    multiples = [int(factor) for factor in factors.split(",")]
    points = {setting: points_of(setting, base, multiples, options) for setting in vary or UNITS}
    curves: dict[str, Curve] = {}
    click.echo("setting      images  batch  image size  steps  micro-batch  models        s   busy s     GiB")
    with tempfile.TemporaryDirectory() as name:
        most = max(point.images for _, point in chain(*points.values()))
        source = image_folder(Path(name) / "images", per_class=-(-most // len(CLASSES)), classes=CLASSES, side=64)
        for setting, each in points.items():
            curves[setting] = [(value, _measured(setting, replace(point, source=source))) for value, point in each]
    for setting, curve in curves.items():
        click.echo(f"{setting}: {growth(setting, curve)}")
    if plot is not None:
        _plot(curves, plot)
        click.echo(f"plot: {plot}")


def points_of(
    setting: str, base: Mapping[str, int], factors: Sequence[int], options: Mapping[str, Any]
) -> list[tuple[int, Point]]:
    """Return the values of one setting, and the point of each, in which all other settings are the same.

    Raises:
        click.ClickException: the images cannot be cut into batches of one size.
    """
    values = [base[setting] * factor for factor in factors]
    fixed = dict(base)
    if setting == "micro-batch":
        fixed["batch"] = max(base["batch"], values[-1])
    fixed["images"] = max(base["images"], fixed["batch"], values[-1] if setting == "batch" else 0)
    points = []
    for value in values:
        sizes = {**fixed, setting: value}
        if setting != "models" and sizes["images"] % sizes["batch"]:
            raise click.ClickException(f"{sizes['images']} images are no whole batches of {sizes['batch']}")
        point = Point(
            images=sizes["images"], batch=sizes["batch"], image_size=sizes["image-size"], steps=sizes["steps"],
            micro_batch=sizes["micro-batch"] if setting == "micro-batch" else None,
            models=sizes["models"] if setting == "models" else 0, **options,
        )  # fmt: skip
        points.append((value, point))
    return points


def _measured(setting: str, point: Point) -> Measured:
    """Measure a point, and print its line of the table."""
    found = in_own_process(point)
    of_shard = f"{point.image_size:10}  {point.steps:5}  {point.micro_batch or 'none':>11}"
    click.echo(
        f"{setting:11}  {point.images:6}  {point.batch:5}  {'' if point.models else of_shard:28}  "
        f"{point.models or '':6}  {found.seconds:7.2f}  {found.busy_seconds:7.2f}  {found.gibibytes:6.2f}"
    )
    return found


def growth(setting: str, curve: Curve) -> str:
    """Return, in one line each, how time and memory grow between the last two points of a curve."""
    if len(curve) < 2:
        return "one point only"
    sizes = [value**2 / 1000 if setting == "image-size" else float(value) for value, _ in curve]
    texts = []
    for what, unit, values in (
        ("time", "s", [found.seconds for _, found in curve]),
        ("busy time", "s", [found.busy_seconds for _, found in curve]),
        ("memory", "MiB", [found.gibibytes * 1024 for _, found in curve]),
    ):
        exponent = math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])
        slopes = [(b - a) / (y - x) for (a, b), (x, y) in zip(pairwise(values), pairwise(sizes), strict=True)]
        before = f", before {slopes[-2]:.4g}" if len(slopes) > 1 else ""
        texts.append(f"{what} exponent {exponent:.2f} ({slopes[-1]:.4g} {unit} more for each {UNITS[setting]}{before})")
    return "\n  ".join([f"from {curve[-2][0]} to {curve[-1][0]}", *texts])


def _plot(curves: Mapping[str, Curve], path: Path) -> None:
    """Draw time above memory, one column for each setting."""
    figure = Figure(figsize=(2.6 * len(curves), 4.8), layout="constrained")
    axes = figure.subplots(2, len(curves), squeeze=False)
    for column, (setting, curve) in enumerate(curves.items()):
        values = [value for value, _ in curve]
        axes[0, column].plot(values, [found.seconds for _, found in curve], "o-", color="#2166ac")
        axes[1, column].plot(values, [found.gibibytes for _, found in curve], "o-", color="#b2182b")
        axes[1, column].set_xlabel("side of an image (px)" if setting == "image-size" else setting)
        for row in range(2):
            axes[row, column].set_xlim(left=0)
            axes[row, column].set_ylim(0, 1.1 * axes[row, column].get_ylim()[1])
            axes[row, column].grid(alpha=0.3)
    axes[0, 0].set_ylabel("time (s)")
    axes[1, 0].set_ylabel("peak memory (GiB)")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
