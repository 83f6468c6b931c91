"""A run from its job to finished data sets: claim the folders, make what is missing, write what is around it."""

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from basics.errors import WorkError
from basics.files import digest_file
from basics.progress import Advance, counted, progress
from pipeline.claim import all_stats, check_outputs, claim, held, recorded
from pipeline.distribute import run_here, run_on_workers
from pipeline.generate import ShardResult
from pipeline.job import Job, Product
from pipeline.layout import LEDGER, LOG, is_done, ledger_part_path, stats_path
from pipeline.ledger import join_columns, read_ledger, write_ledger
from pipeline.manifest import Recorded, accuracies, write_manifest, write_reader_files


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run did."""

    folders: dict[str, Path]
    """Data-set folder by data-set name."""
    images: int
    """Images of the data set."""
    shards: int
    """Shards of the data set."""
    made: int
    """Shards that this call made; the others were there."""
    seconds: float
    """Wall time of this call's shards."""
    top1: dict[str, float]
    """Attacked classifier on originals, reconstructions and perturbed images (0..1)."""

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {**vars(self), "folders": {name: str(folder) for name, folder in self.folders.items()}}


def run(job: Job, *, overwrite: bool = False, scheduler: str | None = None, remake: Collection[int] = ()) -> RunReport:
    """Make every shard that is not there yet, then the files around them.

    Args:
        job: the run.
        overwrite: remove what an earlier run left in the folders.
        scheduler: address of a running Dask scheduler to work on.
        remake: shards to make again although they are marked as finished.

    Raises:
        UserError: an output folder holds something else, or cannot be written.
        WorkError: some shards failed; the message says which and why. The others are finished.
    """
    check_outputs(job, overwrite=overwrite)
    try:
        return _run(job, overwrite=overwrite, scheduler=scheduler, remake=remake)
    except OSError as error:
        raise WorkError(f"{error}. What was finished is kept; the same command goes on from there.") from error


def _run(job: Job, *, overwrite: bool, scheduler: str | None, remake: Collection[int]) -> RunReport:
    with ExitStack() as stack:
        for product in job.products:
            stack.enter_context(held(product.folder))
        # Once more: until the lock was there, another run may have begun or ended.
        check_outputs(job, overwrite=overwrite)
        for product in job.products:
            claim(job, product, overwrite=overwrite)
            for shard in remake:
                stats_path(product.folder, shard).unlink(missing_ok=True)
        missing = missing_shards(job)
        before = {product.name: recorded(product.folder) for product in job.products}
        start = time.monotonic()
        failures = _make(job, missing, scheduler)
        seconds = time.monotonic() - start
        for product in job.products:
            wrong = _refuse_other_bytes(job, product, before[product.name].checksums)
            # Addresses that made no shard, or none of the right bytes, are not the data set's.
            proved = missing and not wrong
            _finish(job, product, replace(before[product.name], addresses={}) if proved else before[product.name])
            failures += wrong
        failures += _vanished(job, failures)
    if failures:
        listed = "\n  ".join(failures)
        raise WorkError(
            f"{len(failures)} of {counted(job.plan.shards, 'shard')} could not be made; the others are kept, "
            f"and the same command makes what is missing:\n  {listed}"
        )
    return RunReport(
        folders={product.name: product.folder for product in job.products},
        images=job.plan.images,
        shards=job.plan.shards,
        made=len(missing),
        seconds=round(seconds, 3),
        top1=accuracies(all_stats(job, job.products[0])),
    )


def _refuse_other_bytes(job: Job, product: Product, recorded: Mapping[int, str]) -> list[str]:
    """Take the mark off shards that were made again with other bytes than before; return what is wrong."""
    wrong = []
    for stats in all_stats(job, product):
        if recorded.get(stats.shard, stats.sha256) != stats.sha256:
            stats_path(product.folder, stats.shard).unlink()
            wrong.append(
                f"shard {stats.shard}: {stats.file} was made again but is not the bytes recorded before, so an "
                "original or the machine has changed; with --overwrite all shards are made anew"
            )
    return wrong


def _vanished(job: Job, failures: Sequence[str]) -> list[str]:
    """Return the shards that are not there in the end although nothing failed."""
    if failures:
        return []
    lost = set(range(job.plan.shards)) - _in_all(job)
    return [f"shard {shard}: it was removed while the run went on" for shard in sorted(lost)]


def _in_all(job: Job) -> set[int]:
    marked = [{stats.shard for stats in all_stats(job, product)} for product in job.products]
    return set.intersection(*marked)


def missing_shards(job: Job) -> list[int]:
    """Return the shards that are not finished in every product, checksums compared."""
    return [
        shard
        for shard in range(job.plan.shards)
        if not all(is_done(product.folder, shard, job.fingerprint_of(product)) for product in job.products)
    ]


def _make(job: Job, missing: Sequence[int], scheduler: str | None) -> list[str]:
    """Make the missing shards; return what failed."""
    done = job.plan.images - sum(job.plan.samples_in(shard) for shard in missing)
    failures = []
    with progress(job.products[0].name, job.plan.images, "images", done) as advance:
        for result in _results(job, missing, scheduler, advance):
            _log(job, result)
            if result.error:
                failures.append(result.error)
            if result.hopeless:
                break
    return failures


def _results(job: Job, missing: Sequence[int], scheduler: str | None, advance: Advance) -> Iterator[ShardResult]:
    if not missing:
        return
    if scheduler is None and job.config.workers == 0:
        yield from run_here(job, missing, advance)
        return
    for finished, result in enumerate(run_on_workers(job, missing, scheduler), start=1):
        advance(job.plan.samples_in(result.shard), f"{finished}/{len(missing)} shards")
        yield result


def _log(job: Job, result: ShardResult) -> None:
    """Keep when each shard ended, apart from the files whose bytes are promised."""
    line = {"time": time.time(), "shard": result.shard, "error": result.error}
    with (job.products[0].folder / LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")


def _finish(job: Job, product: Product, before: Recorded) -> None:
    stats = all_stats(job, product)
    whole = len(stats) == job.plan.shards
    ledger = write_whole_ledger(job, product) if whole and product.perturbed else ""
    if whole:
        write_reader_files(job, product, stats)
    write_manifest(job, product, stats, ledger, before)


def write_whole_ledger(job: Job, product: Product) -> str:
    """Join the shards' parts into `perturbations.h5`; return its SHA-256."""
    parts = [read_ledger(ledger_part_path(product.folder, shard)).columns for shard in range(job.plan.shards)]
    path = product.folder / LEDGER
    classes = job.source.classes
    attributes = {
        "name": product.name,
        "fingerprint": job.fingerprint_of(product),
        "identity": job.identity_of(product),
        "classes": {"imagenet": classes.imagenet, "names": list(classes.names)},
    }
    write_ledger(path, join_columns(parts), attributes)
    return digest_file(path)
