"""The measurements of `benchmarks.gpu`: each is a function of the settings and of what was measured before it.

Legend: N images of the batch.
"""

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from basics.compute import available_cores
from basics.progress import counted
from benchmarks.coding import coding_rates
from benchmarks.fidelity import ComparedNetworks, compare, drawn_to_compare
from benchmarks.gpu_workload import (
    CLASSES,
    Batches,
    MissingError,
    Results,
    Settings,
    Values,
    config_of,
    draw_images,
    label_of,
    linked,
    loaded_pictures,
    picture_paths,
    save_seeded_autoencoder,
    save_seeded_classifier,
)
from benchmarks.modes import Mode, precisions_of
from benchmarks.reference import plain_reference
from benchmarks.timing import matrix_rate, seconds_of
from decoders.autoencoder import Autoencoder, load_autoencoder
from encoders import encoder_kind
from networks.classifiers import load_classifier
from pipeline import batch_arithmetic
from pipeline.batch_arithmetic import PendingBatch, Shifter
from pipeline.config import GenerationConfig
from pipeline.dataset.layout import STATS
from pipeline.generate import generate_shard
from pipeline.job import Job, prepare, products_of
from pipeline.outcome import ShardResult
from pipeline.run import run
from pipeline.runners.runner import OnProgress, Runner
from pipeline.runners.selection import select_runner
from pipeline.transfers import Arrivals
from pipeline.worker import Networks, load_networks, ready_worker
from sources.drawn.source import SHAPES

NARROW = 1 / 8
"""Width of the networks where only bytes and pixels are compared."""
CODERS = 16
"""Threads that code, at most: as many as the main job has (`pipeline.shard`)."""
MATRIX, IMAGES, REFERENCE, CODING = "matrix rate", "images", "plain reference", "coding"
BYTES, DOUBLE, MEMORY = "results: bytes", "results: fp64", "results: memory"


@dataclass(frozen=True)
class Stage:
    """One measurement."""

    name: str
    measure: Callable[[Settings, Results], Values]


def stages_of(settings: Settings) -> list[Stage]:
    """Return all stages: those of the first encoder first, and what may have to train networks last."""
    first, *others = settings.encoders
    return [
        Stage(MATRIX, matrix_rates),
        Stage(IMAGES, draw_images),
        *_arithmetic_stages(settings, first),
        *_run_stages(settings, first),
        Stage(REFERENCE, partial(against_reference, encoder=first)),
        Stage(CODING, partial(coding, encoder=first)),
        Stage(BYTES, partial(same_bytes, encoder=first)),
        Stage(DOUBLE, partial(same_pixels, encoder=first)),
        Stage(MEMORY, partial(peak_memory, encoder=first)),
        *(stage for encoder in others for stage in _arithmetic_stages(settings, encoder)),
        *(stage for encoder in others for stage in _run_stages(settings, encoder)),
        *_fidelity_stages(settings, first),
    ]


def _arithmetic_stages(settings: Settings, encoder: str) -> list[Stage]:
    modes = [Stage(ascent_name(encoder, mode), partial(ascent, encoder=encoder, mode=mode)) for mode in settings.modes]
    return [Stage(operations_name(encoder), partial(operations, encoder=encoder)), *modes]


def _run_stages(settings: Settings, encoder: str) -> list[Stage]:
    counts = [0, settings.workers] if settings.workers else [0]
    return [Stage(run_name(encoder, count), partial(end_to_end, encoder=encoder, workers=count)) for count in counts]


def _fidelity_stages(settings: Settings, encoder: str) -> list[Stage]:
    """Return a stage for the precisions, and one for each compiled mode: a compiler that fails spoils only its own."""
    plain = tuple(Mode(precision=precision) for precision in precisions_of(settings.device))
    compiled = [mode for mode in settings.modes if mode.compiled and mode.micro_batch is None]
    named = {"precisions": plain, **{mode.name: (mode,) for mode in compiled}}
    return [
        Stage(f"fidelity: {name}", partial(fidelity, encoder=encoder, modes=modes)) for name, modes in named.items()
    ]


def operations_name(encoder: str) -> str:
    """Return the name of the stage that counts an encoder's floating-point operations."""
    return f"operations: {encoder}"


def ascent_name(encoder: str, mode: Mode) -> str:
    """Return the name of the stage that measures an encoder's ascent in a mode."""
    return f"ascent: {encoder}, {mode.name}"


def run_name(encoder: str, workers: int) -> str:
    """Return the name of the stage that measures an encoder's end-to-end run."""
    return f"end to end: {encoder}, {counted(workers, 'worker') if workers else 'in process'}"


def fastest_ascent(results: Results, encoder: str, precision: str = "") -> Values:
    """Return the values of an encoder's fastest mode, of all modes or of those of one precision.

    Raises:
        MissingError: none was measured.
    """
    return _fastest(results, f"ascent: {encoder}, {precision}")


def best_run(results: Results, encoder: str) -> Values:
    """Return the values of an encoder's fastest end-to-end run.

    Raises:
        MissingError: none was measured.
    """
    return _fastest(results, f"end to end: {encoder}, ")


def _fastest(results: Results, beginning: str) -> Values:
    named = [values for name, values in results.items() if name.startswith(beginning)]
    measured = [values for values in named if "images_per_s" in values]
    if not measured:
        raise MissingError(f"nothing was measured of {beginning}")
    return max(measured, key=lambda values: float(values["images_per_s"]))


def matrix_rates(settings: Settings, results: Results) -> Values:  # noqa: ARG001
    """Measure the device's own rate: products of square matrices, in TFLOP/s."""
    return {
        name: matrix_rate(settings.compute(name), settings.matrix_size) / 1e12
        for name in precisions_of(settings.device)
    }


def operations(settings: Settings, results: Results, *, encoder: str) -> Values:  # noqa: ARG001
    """Count the floating-point operations of the ascent on one image, which do not depend on the mode."""
    config = Mode(precision="fp32").applied(config_of(settings, encoder))
    ((image, label),) = loaded_pictures(replace(settings, batch_size=1), 1)
    networks = load_networks(config, CLASSES)
    with FlopCounterMode(display=False) as counter:
        _begin(networks, config, image, label).result()
    return {"teraflop_per_image": counter.get_total_flops() / 1e12}


def ascent(settings: Settings, results: Results, *, encoder: str, mode: Mode) -> Values:
    """Measure the ascent alone, on decoded batches."""
    config = mode.applied(config_of(settings, encoder))
    networks = load_networks(config, CLASSES)
    batches = loaded_pictures(settings, 2)
    first = seconds_of(lambda: _begin(networks, config, *batches[0]).result(), str(networks.shifter.compute.device))
    rate = _ascent_rate(networks, config, batches, settings.ascent_seconds)
    found = {"mode": mode.name, "images_per_s": rate, "first_batch_s": first}
    teraflop = results.get(operations_name(encoder), {}).get("teraflop_per_image")
    own_rate = results.get(MATRIX, {}).get(mode.precision)
    if teraflop is not None:
        found["teraflop_per_s"] = rate * teraflop
    if teraflop is not None and own_rate is not None:
        found["share_of_matrix_rate"] = rate * teraflop / own_rate
    return found


def _ascent_rate(networks: Networks, config: GenerationConfig, batches: Batches, seconds: float) -> float:
    """Return images a second of the ascent, begun ahead as the main job does; at least two batches."""
    begun: deque[PendingBatch] = deque()
    images, start = 0, time.perf_counter()
    while images < 2 * config.batch_size or time.perf_counter() - start < seconds:
        image, label = batches[images // config.batch_size % len(batches)]
        begun.append(_begin(networks, config, image, label))
        images += len(image)
        if len(begun) > networks.shifter.ahead:
            begun.popleft().result()
    for pending in begun:
        pending.result()
    return images / (time.perf_counter() - start)


def _begin(networks: Networks, config: GenerationConfig, image_N3HW: Tensor, label_N: Tensor) -> PendingBatch:
    assert networks.perturber is not None
    return networks.perturber.begin(image_N3HW, label_N, config.attack)


@dataclass
class ObservedRunner:
    """A runner, with the time of each report of its progress."""

    runner: Runner
    reports: list[tuple[float, int, int]] = field(default_factory=list)
    """Time, shard, and how many of its images were done."""

    def results(self, job: Job, shards: Sequence[int], on_progress: OnProgress) -> Iterator[ShardResult]:
        """See `Runner`."""

        def observed(shard: int, images: int) -> None:
            self.reports.append((time.perf_counter(), shard, images))
            on_progress(shard, images)

        yield from self.runner.results(job, shards, observed)

    def steady_rate(self, processes: int) -> float | None:
        """Return images a second from when all processes had reported a batch; None if that was too late.

        The start of processes, with their networks, takes longer than a short run; of a whole data set it is nothing.
        """
        done: dict[int, int] = {}
        start: tuple[float, int] | None = None
        for moment, shard, images in self.reports:
            done[shard] = images
            if start is None and len(done) >= processes:
                start = moment, sum(done.values())
        if start is None or self.reports[-1][0] <= start[0]:
            return None
        return (sum(done.values()) - start[1]) / (self.reports[-1][0] - start[0])


def end_to_end(settings: Settings, results: Results, *, encoder: str, workers: int) -> Values:
    """Measure a whole run in the fastest mode, and the ascent alone before and after it."""
    fastest = fastest_ascent(results, encoder)
    batches = max(2 * max(workers, 1), round(fastest["images_per_s"] * settings.run_seconds / settings.batch_size))
    config = Mode.parse(fastest["mode"]).applied(config_of(settings, encoder, batches))
    # Shards as large as the main job's, but several for each process.
    shard = min(GenerationConfig.batches_per_shard, -(-batches // (4 * max(workers, 1))))
    config = replace(config, batches_per_shard=shard, workers=workers)
    out, loaded = settings.folder / f"out-{encoder}-{workers}", loaded_pictures(settings, 2)
    with _removed(out), select_runner(config, None) as selection:
        job = prepare(selection.config, products_of(config, out, "benchmark-advbn"))
        alone = [_alone(job, loaded, settings.ascent_seconds / 2)]
        observed = ObservedRunner(selection.runner)
        start = time.perf_counter()
        made = run(job, observed)
        seconds = time.perf_counter() - start
        alone.append(_alone(job, loaded, settings.ascent_seconds / 2))
    whole, steady = made.images / seconds, observed.steady_rate(max(workers, 1))
    # Processes are started once for a whole data set, so a short run counts from when they all work.
    rate = (steady or whole) if workers else whole
    alone_rate = sum(alone) / len(alone)
    return {
        "mode": fastest["mode"],
        "images": made.images,
        "shards": made.shards,
        "seconds": seconds,
        "images_per_s": rate,
        "images_per_s_with_start": whole,
        "images_per_s_steady": steady,
        "ascent_alone_images_per_s": alone_rate,
        "waiting_share": 1 - rate / alone_rate,
    }


def _alone(job: Job, batches: Batches, seconds: float) -> float:
    """Return images a second of the ascent alone, with the networks of a run."""
    networks = ready_worker(job.requirements)
    _begin(networks, job.config, *batches[0]).result()
    return _ascent_rate(networks, job.config, batches, seconds)


@contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """Remove a folder at the end: the disk may have no room for the images of all stages."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def against_reference(settings: Settings, results: Results, *, encoder: str) -> Values:
    """Measure a plain loop over the same images, as the method would be written down first, beside the fastest run."""
    ours = best_run(results, encoder)["images_per_s"]
    count = settings.reference_batches * settings.batch_size
    source = linked(settings, count)
    paths = sorted(source.glob("*/*"))[:count]
    config = config_of(settings, encoder)
    out = settings.folder / "reference"
    with _removed(out):
        for name, number in (("first", settings.batch_size), ("measured", count)):  # The first call warms up.
            autoencoder, classifier = _plain_networks(config)
            seconds = plain_reference(
                paths[:number],
                [label_of(path) for path in paths[:number]],
                autoencoder,
                classifier,
                out / name,
                batch_size=settings.batch_size,
                image_size=settings.image_size,
                device=str(settings.compute("auto").device),
            )
    return {"images": count, "seconds": seconds, "images_per_s": count / seconds, "ratio": ours * seconds / count}


def _plain_networks(config: GenerationConfig) -> tuple[Autoencoder, nn.Module]:
    """Return autoencoder and classifier as they are loaded, not made ready by us."""
    assert config.autoencoder is not None
    classifier = load_classifier(None, str(config.classifier_weights), CLASSES)
    return load_autoencoder(Path(config.autoencoder)).module, classifier.module


def coding(settings: Settings, results: Results, *, encoder: str) -> Values:
    """Measure decoding and encoding, and how much of it the fastest run needs."""
    cores = available_cores()
    threads = min(CODERS, cores)
    rates = coding_rates(picture_paths(settings), settings.image_size, threads, settings.coding_seconds)
    found: Values = {"cores": cores, "threads": threads, **rates}
    rate = best_run(results, encoder)["images_per_s"]

    def busy(kind: str) -> float:
        """Return how many such workers (or groups of workers) decode and encode so many images a second."""
        return float(rate / rates[f"decoded_per_s_{kind}"] + rate / rates[f"encoded_per_s_{kind}"])

    return {
        **found,
        "threads_needed": busy("one_thread"),
        "share_of_all_threads": busy("threads"),
        "share_of_all_processes": busy("processes"),
    }


def same_bytes(settings: Settings, results: Results, *, encoder: str) -> Values:
    """Compare the bytes of a shard that is made twice, and with no batch and with one begun ahead."""
    mode = fastest_ascent(results, encoder)["mode"]
    config = Mode.parse(mode).applied(config_of(settings, encoder, batches=2))
    out = settings.folder / "bytes"
    with _removed(out):
        job = prepare(config, products_of(config, out / "prepared", "benchmark-advbn"))
        first, again = _shard_bytes(job, out / "first"), _shard_bytes(job, out / "again")
        # A batch alone and one beside the next, whichever of the two is usual on this device.
        ahead = [_shard_bytes(job, out / f"ahead{count}", count) for count in (0, 1)]
        with (
            mock.patch.object(Arrivals, "to_host", lambda _, value: value.cpu()),
            mock.patch.object(batch_arithmetic, "to_device", lambda value, device: value.to(device)),
        ):
            plain = _shard_bytes(job, out / "plain")
    return {
        "mode": mode,
        "same_twice": first == again,
        "same_ahead": first == ahead[0] == ahead[1],
        "same_as_with_plain_copies": first == plain,
    }


def _shard_bytes(job: Job, out: Path, ahead: int | None = None) -> dict[str, bytes]:
    """Return the files of the first shard, made anew with so many batches begun ahead; None: as many as usual."""
    (out / STATS).mkdir(parents=True)
    fresh = replace(job, datasets=(replace(job.datasets[0], folder=out),))
    usual = ready_worker(job.requirements).shifter.ahead
    with mock.patch.object(Shifter, "ahead", usual if ahead is None else ahead):
        result = generate_shard(fresh, 0)
    if not result.done:
        raise MissingError(result.reason)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def same_pixels(settings: Settings, results: Results, *, encoder: str) -> Values:  # noqa: ARG001
    """Compare in double precision the images of a batch passed as a whole and by parts, with narrow networks."""
    config = config_of(settings, encoder, width=min(settings.width, NARROW))
    ((image, label),) = loaded_pictures(settings, 1)
    part = settings.batch_size // 4
    images = []
    for size in (None, part):
        applied = Mode(precision="fp64", micro_batch=size).applied(config)
        images.append(_begin(load_networks(applied, CLASSES), applied, image, label).result().perturbed_N3HW)
    different = int((images[0] != images[1]).sum())
    return {"micro_batch": part, "different_values": different, "identical": different == 0}


def peak_memory(settings: Settings, results: Results, *, encoder: str) -> Values:
    """Measure the greatest memory of the ascent, batches passed as a whole and by parts."""
    if not settings.on_cuda:
        return {"skipped": "only CUDA devices say how much memory was used"}
    mode, found = Mode.parse(fastest_ascent(results, encoder)["mode"]), {}
    config = config_of(settings, encoder)
    ((image, label),) = loaded_pictures(settings, 1)
    for size in (None, settings.batch_size // 4, settings.batch_size // 8):
        # Not compiled: compiling takes minutes, and memory of its own.
        applied = replace(mode, compiled=False, micro_batch=size).applied(config)
        load_networks.cache_clear()
        networks = load_networks(applied, CLASSES)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _begin(networks, applied, image, label).result()
        found[f"gibibytes_{size or 'whole'}"] = torch.cuda.max_memory_allocated() / 2**30
    return {"precision": mode.precision, **found}


def fidelity(settings: Settings, results: Results, *, encoder: str, modes: Sequence[Mode]) -> Values:  # noqa: ARG001
    """Compare modes on drawn images."""
    networks = drawn_to_compare(encoder) if settings.drawn else _seeded_to_compare(settings, encoder)
    return compare(networks, settings.device, modes, settings.fidelity_batches).to_json()


def _seeded_to_compare(settings: Settings, encoder: str) -> ComparedNetworks:
    """Return narrow networks with weights from a seed, where none shall be trained."""
    folder = settings.folder / "compared"
    folder.mkdir(exist_ok=True)
    width = min(settings.width, NARROW)
    networks = ComparedNetworks(
        encoder=encoder,
        autoencoder=folder / "autoencoder.safetensors",
        attacked=folder / "attacked.safetensors",
        unseen=folder / "unseen.safetensors",
        image_size=settings.image_size,
    )
    save_seeded_autoencoder(networks.autoencoder, encoder, width)
    save_seeded_classifier(networks.attacked, encoder_kind(encoder).classifier, len(SHAPES), width)
    save_seeded_classifier(networks.unseen, "resnet18", len(SHAPES), width)
    return networks
