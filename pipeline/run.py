"""A run from its job to finished data sets: claim the folders, make what is missing, write what is around it."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from basics.errors import WorkError
from basics.files import digest_file, remove_files
from basics.paths import AnyPath, is_remote
from basics.progress import Advance, counted, progress
from pipeline.claim import all_stats, check_outputs, claim, held, recorded, require_ours
from pipeline.dataset.layout import LEDGER, LOG, is_done, ledger_part_path, of_each, stats_path
from pipeline.dataset.ledger import join_columns, read_ledger, write_ledger
from pipeline.dataset.manifest import Recorded, accuracies, write_manifest
from pipeline.dataset.reader_files import write_reader_files
from pipeline.job import Job, Product
from pipeline.outcome import ShardResult
from pipeline.runners.runner import Runner
from pipeline.runners.serial import SerialRunner


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run did."""

    folders: dict[str, AnyPath]
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


def run(job: Job, runner: Runner | None = None, *, overwrite: bool = False, remake: Collection[int] = ()) -> RunReport:
    """Make every shard that is not there yet, then the files around them.

    Args:
        job: the run.
        runner: what makes the shards; None: this process.
        overwrite: remove what an earlier run left in the folders.
        remake: shards to make again although they are marked as finished.

    Raises:
        UserError: an output folder holds something else, or cannot be written.
        WorkError: some shards failed; the message says which and why. The others are finished.
    """
    check_outputs(job, overwrite=overwrite)
    try:
        return _run(job, runner or SerialRunner(), overwrite=overwrite, remake=remake)
    except OSError as error:
        raise WorkError(f"{error}. What was finished is kept; the same command goes on from there.") from error


def _run(job: Job, runner: Runner, *, overwrite: bool, remake: Collection[int]) -> RunReport:
    with ExitStack() as stack:
        for product in job.products:
            stack.enter_context(held(product.folder))
        # Once more: until the lock was there, another run may have begun or ended.
        check_outputs(job, overwrite=overwrite)
        for product in job.products:
            claim(job, product, overwrite=overwrite)
            remove_files([stats_path(product.folder, shard) for shard in remake])
        missing = missing_shards(job)
        before = {product.name: recorded(product.folder) for product in job.products}
        start = time.monotonic()
        failures = _make(job, missing, runner)
        seconds = time.monotonic() - start
        for product in job.products:
            require_ours(job, product)
            wrong = _refuse_other_bytes(job, product, before[product.name].checksums)
            # Addresses that made no shard, or none of the right bytes, are not the data set's.
            proved = missing and not wrong
            _finish(job, product, replace(before[product.name], addresses={}) if proved else before[product.name])
            failures += wrong
        failures += _vanished(job, failures)
    if failures:
        listed, unmade = "\n  ".join(failures), job.plan.shards - len(_in_all(job))
        raise WorkError(
            f"{unmade} of {counted(job.plan.shards, 'shard')} could not be made; the others are kept, "
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
            remove_files([stats_path(product.folder, stats.shard)])
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
    if any(is_remote(product.folder) for product in job.products):
        # No lock kept others away: what a run that was overtaken uploaded last may lie over a shard of this one.
        lost |= set(missing_shards(job))
    return [f"shard {shard}: it was removed or changed while the run went on" for shard in sorted(lost)]


def _in_all(job: Job) -> set[int]:
    marked = [{stats.shard for stats in all_stats(job, product)} for product in job.products]
    return set.intersection(*marked)


def missing_shards(job: Job) -> list[int]:
    """Return the shards that are not finished in every product, checksums compared."""
    missing = set[int]()
    for product in job.products:
        fingerprint, folder = job.fingerprint_of(product), product.folder
        shards = range(job.plan.shards)
        done = of_each(folder, lambda shard: is_done(folder, shard, fingerprint), shards)  # noqa: B023
        missing.update(shard for shard in shards if not done[shard])
    return sorted(missing)


def _make(job: Job, missing: Sequence[int], runner: Runner) -> list[str]:
    """Make the missing shards; return what failed."""
    if not missing:
        return []
    done = job.plan.images - sum(job.plan.samples_in(shard) for shard in missing)
    failures = []
    with progress(job.products[0].name, job.plan.images, "images", done) as advance:
        tally = _Tally(job, len(missing), advance)
        for result in runner.results(job, missing, tally.reached):
            tally.ended(result)
            _log(job, result)
            if not result.done:
                failures.append(result.reason)
            if result.aborts_run:
                break
    return failures


class _Tally:
    """Turns how far each shard is into how far the run is: one bar for all that work on it."""

    def __init__(self, job: Job, shards: int, advance: Advance) -> None:
        self._job, self._shards, self._advance = job, shards, advance
        self._images: dict[int, int] = {}
        self._whole = set[int]()

    def reached(self, shard: int, images: int) -> None:
        """Count the images of a shard that are done; fewer than before if it was begun again."""
        more = images - self._images.get(shard, 0)
        self._images[shard] = images
        change = self._whole.add if images == self._job.plan.samples_in(shard) else self._whole.discard
        change(shard)
        if more:
            self._advance(more, f"{len(self._whole)}/{self._shards} shards")

    def ended(self, result: ShardResult) -> None:
        """Count a shard as done, or as not done if it failed."""
        self.reached(result.shard, self._job.plan.samples_in(result.shard) if result.done else 0)


def _log(job: Job, result: ShardResult) -> None:
    """Keep when each shard ended, apart from the files whose bytes are promised; nothing can be appended remotely."""
    if is_remote(job.products[0].folder):
        return
    line = {"time": time.time(), "shard": result.shard, "error": result.reason}
    with (job.products[0].folder / LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")


def _finish(job: Job, product: Product, before: Recorded) -> None:
    stats = all_stats(job, product)
    whole = len(stats) == job.plan.shards
    ledger = write_whole_ledger(job, product) if whole and product.perturbed else ""
    if whole:
        write_reader_files(product.folder, job.description(product), stats)
    write_manifest(product.folder, job.description(product), stats, ledger, before)


def write_whole_ledger(job: Job, product: Product) -> str:
    """Join the shards' parts into `perturbations.h5`; return its SHA-256."""
    folder = product.folder
    parts = of_each(folder, lambda shard: read_ledger(ledger_part_path(folder, shard)).columns, range(job.plan.shards))
    path = folder / LEDGER
    classes = job.source.classes
    attributes = {
        "name": product.name,
        "fingerprint": job.fingerprint_of(product),
        "identity": job.identity_of(product),
        "classes": {"imagenet": classes.imagenet, "names": list(classes.names)},
    }
    write_ledger(path, join_columns(parts), attributes)
    return digest_file(path)
