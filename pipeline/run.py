"""A run from its job to finished data sets: claim the folders, make what is missing, write what is around it."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basics.differences import differences
from basics.errors import UserError, WorkError
from basics.files import TEMPORARY_SUFFIX, digest_file, require_writable_folder
from basics.progress import Advance, counted, progress
from pipeline.distribute import run_here, run_on_workers
from pipeline.generate import ShardResult
from pipeline.job import Job, Product
from pipeline.layout import (
    CARD,
    LEDGER,
    LOG,
    MANIFEST,
    STATS,
    TIMM_INFO,
    WIDS_INDEX,
    ShardStats,
    is_done,
    ledger_part_path,
    read_stats,
)
from pipeline.ledger import join_columns, read_ledger, write_ledger
from pipeline.manifest import Manifest, accuracies, read_manifest, write_manifest, write_reader_files

_JUST_STARTED = {STATS, MANIFEST + TEMPORARY_SUFFIX}
"""All that a run leaves which was killed before its manifest was whole."""


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


def run(job: Job, *, overwrite: bool = False, scheduler: str | None = None) -> RunReport:
    """Make every shard that is not there yet, then the files around them.

    Raises:
        UserError: an output folder holds something else, or cannot be written.
        WorkError: some shards failed; the message says which and why. The others are finished.
    """
    check_outputs(job, overwrite=overwrite)
    try:
        return _run(job, overwrite=overwrite, scheduler=scheduler)
    except OSError as error:
        raise WorkError(f"{error}. What was finished is kept; the same command goes on from there.") from error


def check_outputs(job: Job, *, overwrite: bool) -> None:
    """Refuse output folders that hold something else; nothing is written.

    Raises:
        UserError: see above.
    """
    for product in job.products:
        if product.folder.exists():
            _check_owner(job, product, overwrite=overwrite)


def _run(job: Job, *, overwrite: bool, scheduler: str | None) -> RunReport:
    for product in job.products:
        _claim(job, product, overwrite=overwrite)
    missing = missing_shards(job)
    start = time.monotonic()
    failures = _make(job, missing, scheduler)
    seconds = time.monotonic() - start
    for product in job.products:
        _finish(job, product)
    if failures:
        listed = "\n  ".join(failures)
        raise WorkError(
            f"{len(failures)} of {counted(job.plan.shards, 'shard')} could not be made; the others are kept, "
            f"and the same command makes what is missing:\n  {listed}"
        )
    stats = _all_stats(job, job.products[0])
    return RunReport(
        folders={product.name: product.folder for product in job.products},
        images=job.plan.images,
        shards=job.plan.shards,
        made=len(missing),
        seconds=round(seconds, 3),
        top1=accuracies(stats),
    )


def missing_shards(job: Job) -> list[int]:
    """Return the shards that are not finished in every product, checksums compared."""
    return [
        shard
        for shard in range(job.plan.shards)
        if not all(is_done(product.folder, shard, job.fingerprint_of(product)) for product in job.products)
    ]


def _claim(job: Job, product: Product, *, overwrite: bool) -> None:
    """Make the folder this run's own."""
    folder = product.folder
    require_writable_folder(folder)
    if overwrite:
        manifest = _manifest(folder)
        _remove(folder, manifest.values["name"] if manifest else product.name)
    (folder / STATS).mkdir(exist_ok=True)
    for left in (*folder.glob(f"*{TEMPORARY_SUFFIX}"), *(folder / STATS).glob(f"*{TEMPORARY_SUFFIX}")):
        left.unlink()
    if _manifest(folder) is None:
        write_manifest(job, product, (), "")


def _manifest(folder: Path) -> Manifest | None:
    """Return the folder's manifest, or None if there is no readable one."""
    try:
        return read_manifest(folder)
    except UserError:
        return None


def _check_owner(job: Job, product: Product, *, overwrite: bool) -> None:
    folder = product.folder
    if not folder.is_dir():
        raise UserError(f"The output {folder} is a file; give a folder.")
    if all(path.name in _JUST_STARTED for path in folder.iterdir()):
        return
    manifest = _manifest(folder)
    if manifest is None:
        # A lost or damaged manifest is written again, if the marks of the shards show whose it was.
        if not _all_stats(job, product):
            raise UserError(f"The folder {folder} holds files that are not this data set's; give another --out.")
        return
    told = {"name": manifest.values["name"], **manifest.values["identity"]}
    changed = differences(told, {"name": product.name, **json.loads(json.dumps(job.identity_of(product)))})
    if changed and not overwrite:
        raise UserError(
            f"The folder {folder} holds another run ({'; '.join(changed)}); "
            "give another --out, or --overwrite to start anew."
        )


def _remove(folder: Path, name: str) -> None:
    """Remove a data set's own files, and nothing else that somebody may have put there."""
    # The manifest goes last: as long as it is there, the folder can be told to be ours.
    for pattern in (f"{name}-*.tar", f"*{TEMPORARY_SUFFIX}", LEDGER, TIMM_INFO, WIDS_INDEX, CARD, LOG):
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / STATS, ignore_errors=True)
    (folder / MANIFEST).unlink(missing_ok=True)


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


def _finish(job: Job, product: Product) -> None:
    stats = _all_stats(job, product)
    whole = len(stats) == job.plan.shards
    ledger = write_whole_ledger(job, product) if whole and product.perturbed else ""
    if whole:
        write_reader_files(job, product, stats)
    write_manifest(job, product, stats, ledger)


def _all_stats(job: Job, product: Product) -> list[ShardStats]:
    found = (read_stats(product.folder, shard) for shard in range(job.plan.shards))
    return [stats for stats in found if stats is not None and stats.fingerprint == job.fingerprint_of(product)]


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
