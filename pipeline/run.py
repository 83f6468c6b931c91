"""A run from its job to finished data sets: claim the folders, make missing shards, write the files beside them."""

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from basics.errors import UserError, WorkError
from basics.files import digest_file, remove_files
from basics.ownership import ANOTHER_OUT
from basics.paths import AnyPath, is_remote
from basics.progress import Advance, counted, progress
from pipeline.claim import check_outputs, claim, lock_output, require_same_fingerprint
from pipeline.dataset.layout import LEDGER, LOG, is_done, ledger_part_path, map_shards, mark_path
from pipeline.dataset.ledger import SAMPLES, join_columns, read_ledger, write_ledger
from pipeline.dataset.manifest import (
    DatasetDescription,
    Recorded,
    accuracies,
    marked_shards,
    read_recorded,
    write_manifest,
)
from pipeline.dataset.reader_files import write_reader_files
from pipeline.job import Job
from pipeline.outcome import ShardResult
from pipeline.runners.runner import Runner
from pipeline.runners.serial import SerialRunner

_REPAIR_A_COPY = "repair a copy of it"
_COMPARED_SHARDS = 64
"""Finished shards, about so many and evenly spread, of which originals are compared when a run goes on."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a run, as `generate` returns it.

    Attributes:
        folders: data-set folder by data-set name: the perturbed images, then the reconstructions if there are any.
        images: images of the data set.
        shards: shards of the data set.
        made: shards that this call made; the others were finished before.
        seconds: wall time in which this call made its shards.
        top1: top-1 of the attacked classifier (0..1) on originals (`clean`), reconstructions (`reconstructed`) and
            perturbed images (`adversarial`).

    Example (the drawn world's networks are trained at first use, for two minutes):
        >>> from dataclasses import replace
        >>> from advbn_gen import RunResult, generate, sample_advbn
        >>> config = replace(sample_advbn("vgg"), limit=4, batch_size=4, reconstructed=True)
        >>> result: RunResult = generate(config, "few-advbn")
        >>> result.images, sorted(result.top1)
        (4, ['adversarial', 'clean', 'reconstructed'])
        >>> {name: folder.name for name, folder in result.folders.items()}
        {'sample-advbn-vgg': 'few-advbn', 'sample-reconstructed-vgg': 'few-reconstructed'}
    """

    folders: dict[str, AnyPath]
    images: int
    shards: int
    made: int
    seconds: float
    top1: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {**vars(self), "folders": {name: str(folder) for name, folder in self.folders.items()}}


def run(
    job: Job, runner: Runner | None = None, *, overwrite: bool = False, remake: Collection[int] | None = None
) -> RunResult:
    """Make every shard that is not finished yet, then the files beside them.

    Args:
        job: the run.
        runner: what makes the shards; None for this process.
        overwrite: remove what an earlier run left in the folders.
        remake: shards of a finished data set to make again although they are marked as finished, in a repair.

    Raises:
        UserError: an output folder holds something else, or shards of other originals, or cannot be written.
        WorkError: some shards failed; the message says which and why. The others are finished.
    """
    check_outputs(job.datasets, job.config.source, overwrite=overwrite)
    try:
        return _run(job, runner or SerialRunner(), overwrite=overwrite, remake=remake)
    except OSError as error:
        raise WorkError(
            f"{error}. What was finished is kept; when that is mended, the same command goes on from there."
        ) from error


def _run(job: Job, runner: Runner, *, overwrite: bool, remake: Collection[int] | None) -> RunResult:
    datasets = job.datasets
    with ExitStack() as stack:
        for dataset in datasets:
            stack.enter_context(lock_output(dataset.folder, ANOTHER_OUT if remake is None else _REPAIR_A_COPY))
        # Checked again, because another run may have begun or ended before the folders were locked.
        check_outputs(datasets, job.config.source, overwrite=overwrite)
        for dataset in datasets:
            claim(dataset, overwrite=overwrite)
            remove_files([mark_path(dataset.folder, shard) for shard in remake or ()])
        missing = missing_shards(datasets)
        before = [read_recorded(dataset.folder) for dataset in datasets]
        if not set(missing) <= before[0].checksums.keys():
            # Of shards that were finished once, the checksums are compared.
            _require_same_originals(job, missing)
        start = time.monotonic()
        failures = _make(job, missing, runner)
        seconds = time.monotonic() - start
        for dataset, earlier in zip(datasets, before, strict=True):
            require_same_fingerprint(dataset)
            wrong = _refuse_other_bytes(dataset, earlier.checksums)
            # What a call that made no shard, or none of the right bytes, was given is not the data set's origin.
            _finish(dataset, replace(earlier, origin={}) if missing and not wrong else earlier)
            failures += wrong
        failures += _removed_meanwhile(datasets, failures)
    if failures:
        listed, unmade = "\n  ".join(failures), job.plan.shards - len(_finished_in_all(datasets))
        raise WorkError(
            f"{unmade} of {counted(job.plan.shards, 'shard')} could not be made; the others are kept, "
            f"and the same command makes what is missing:\n  {listed}"
        )
    return RunResult(
        folders={dataset.name: dataset.folder for dataset in datasets},
        images=job.plan.images,
        shards=job.plan.shards,
        made=len(missing),
        seconds=round(seconds, 3),
        top1=accuracies(marked_shards(datasets[0])),
    )


def _require_same_originals(job: Job, missing: Sequence[int]) -> None:
    """Refuse to add shards to those that were made of other images of the same names.

    Two originals of a finished shard are read and compared with its ledger: all would take as long as making it. A
    rendering compares each original with its ledger anyway.

    Raises:
        UserError: see above.
    """
    folder, lacking = job.datasets[0].folder, set(missing)
    finished = [shard for shard in range(job.plan.shards) if shard not in lacking]
    if job.perturbation.rendered is not None or not job.datasets[0].perturbed:
        return
    for shard in finished[:: len(finished) // _COMPARED_SHARDS + 1]:
        digests = read_ledger(ledger_part_path(folder, shard)).columns[f"{SAMPLES}/source_sha256"]
        indices = [index for _, batch in job.plan.batches_of(shard) for index in batch]
        for index, digest in {indices[0]: digests[0], indices[-1]: digests[-1]}.items():
            record = job.records[index]
            try:
                same = hashlib.sha256(job.source.read(record)).digest() == bytes(digest)
            except OSError:
                continue  # Its shard is finished, so that it is not needed.
            if not same:
                raise UserError(
                    f"The original {record.name} is no longer the file that shard {shard} in {folder} was made of, so "
                    "the shards would be of two kinds of originals; put the former files back, or give --overwrite to "
                    "make all shards anew."
                )


def _refuse_other_bytes(dataset: DatasetDescription, checksums: Mapping[int, str]) -> list[str]:
    """Remove the marks of shards that were made again with other bytes than before; return messages about them."""
    messages = []
    for mark in marked_shards(dataset):
        if checksums.get(mark.shard, mark.sha256) != mark.sha256:
            remove_files([mark_path(dataset.folder, mark.shard)])
            messages.append(
                f"shard {mark.shard}: {mark.file} was made again but is not the bytes recorded before, so an "
                "original or the machine has changed; the command that made the data set makes all shards anew with "
                "--overwrite"
            )
    return messages


def _removed_meanwhile(datasets: Sequence[DatasetDescription], failures: Sequence[str]) -> list[str]:
    """Return messages about shards that are missing in the end although nothing failed."""
    if failures:
        return []
    lost = set(range(datasets[0].plan.shards)) - _finished_in_all(datasets)
    if any(is_remote(dataset.folder) for dataset in datasets):
        # No lock kept others away: the last upload of a run that was overtaken may have replaced a shard of this one.
        lost |= set(missing_shards(datasets))
    return [f"shard {shard}: it was removed or changed while the run went on" for shard in sorted(lost)]


def _finished_in_all(datasets: Sequence[DatasetDescription]) -> set[int]:
    marked = [{mark.shard for mark in marked_shards(dataset)} for dataset in datasets]
    return set.intersection(*marked)


def missing_shards(datasets: Sequence[DatasetDescription]) -> list[int]:
    """Return the shards that are not finished in each of a run's data sets, checksums compared."""
    missing = set[int]()
    for dataset in datasets:
        shards = range(dataset.plan.shards)
        done = map_shards(dataset.folder, lambda shard: is_done(dataset.folder, shard, dataset.fingerprint), shards)  # noqa: B023
        missing.update(shard for shard in shards if not done[shard])
    return sorted(missing)


def _make(job: Job, missing: Sequence[int], runner: Runner) -> list[str]:
    """Make the missing shards; return the reasons of those that failed."""
    if not missing:
        return []
    done = job.plan.images - sum(job.plan.samples_in(shard) for shard in missing)
    failures = []
    with progress(job.datasets[0].name, job.plan.images, "images", done) as advance:
        shown = _RunProgress(job, len(missing), advance)
        for result in runner.results(job, missing, shown.update):
            shown.finish(result)
            _log(job, result)
            if not result.done:
                failures.append(result.reason)
            if result.aborts_run:
                break
    return failures


class _RunProgress:
    """Progress of the run, summed over the progress of its shards: one bar for all workers."""

    def __init__(self, job: Job, shards: int, advance: Advance) -> None:
        self._job, self._shards, self._advance = job, shards, advance
        self._images: dict[int, int] = {}
        """Images of each shard that are done."""
        self._finished = set[int]()

    def update(self, shard: int, images: int) -> None:
        """Set the number of a shard's images that are done; it is less than before if the shard was begun again."""
        more = images - self._images.get(shard, 0)
        self._images[shard] = images
        change = self._finished.add if images == self._job.plan.samples_in(shard) else self._finished.discard
        change(shard)
        if more:
            self._advance(more, f"{len(self._finished)}/{self._shards} shards")

    def finish(self, result: ShardResult) -> None:
        """Count all images of a shard as done, or none if it failed."""
        self.update(result.shard, self._job.plan.samples_in(result.shard) if result.done else 0)


def _log(job: Job, result: ShardResult) -> None:
    """Log when each shard ended, in a file of its own since its bytes are not promised; stores cannot append."""
    if is_remote(job.datasets[0].folder):
        return
    line = {"time": time.time(), "shard": result.shard, "error": result.reason}
    with (job.datasets[0].folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _finish(dataset: DatasetDescription, before: Recorded) -> None:
    marks = marked_shards(dataset)
    complete = len(marks) == dataset.plan.shards
    ledger_sha256 = _write_whole_ledger(dataset) if complete and dataset.perturbed else ""
    if complete:
        write_reader_files(dataset, marks)
    write_manifest(dataset, marks, ledger_sha256, before)


def _write_whole_ledger(dataset: DatasetDescription) -> str:
    """Join the shards' parts into `perturbations.h5`; return its SHA-256."""
    folder, shards = dataset.folder, range(dataset.plan.shards)
    parts = map_shards(folder, lambda shard: read_ledger(ledger_part_path(folder, shard)).columns, shards)
    attributes = {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "identity": dataset.identity,
        "classes": {"imagenet": dataset.imagenet, "names": list(dataset.classes)},
    }
    write_ledger(folder / LEDGER, join_columns(parts), attributes)
    return digest_file(folder / LEDGER)
