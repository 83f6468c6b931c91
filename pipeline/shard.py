"""Making one shard from its plan, with networks that are ready: its tar, its ledger rows and its mark.

Three iterator stages, each fed by the one before: `decoded -> perturbed -> encoded`. A loop writes the batches that the
last one yields. While a batch is computed, threads decode the next one and encode the last one.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from basics.files import commit, digest_file, working_folder
from basics.paths import is_remote
from pipeline.batch_arithmetic import PendingBatch, PerturbedBatch
from pipeline.claim import require_same_fingerprint
from pipeline.dataset.layout import ShardMark, ledger_part_path, mark_path, shard_name, stored_checksum
from pipeline.dataset.ledger import BatchRow, Columns, LedgerRows, pixel_means, write_ledger
from pipeline.dataset.manifest import DatasetDescription
from pipeline.dataset.shard_file import NO_PREDICTION, SampleMetadata, ShardWriter, encode_png, open_shard
from pipeline.perturbation import DecodedBatch, Original, Perturbation
from pipeline.worker import Networks
from sources.base import ImageRecord, Source
from sources.decode import load_image

_MOST_CODING_THREADS = 16
"""Threads that decode and encode, at most."""
_LOSS_DIGITS = 6
"""Decimal places of a loss in `.json`; the ledger stores losses as whole millionths."""

Item_co = TypeVar("Item_co", covariant=True)


class Indexed(Protocol[Item_co]):
    """Items by their position in a run: a sequence, or a dict with some of the positions."""

    def __getitem__(self, index: int, /) -> Item_co:
        """Return the item at a position."""
        ...


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """Everything about one shard that is fixed before it is made."""

    shard: int
    """Number of the shard."""
    batches: tuple[tuple[int, range], ...]
    """Number of each batch, and positions of its images in the run."""
    source: Source
    """Where the images are read."""
    records: Indexed[ImageRecord]
    """The images by their position in the run."""
    keys: Indexed[str]
    """Sample key of each image."""
    image_size: int
    """Side of the square images, in pixels."""
    perturbation: Perturbation
    """How these images are perturbed."""


class EncodedBatch(NamedTuple):
    """A batch ready to be written."""

    row: BatchRow
    """What the ledger stores of it."""
    samples: list[SampleMetadata]
    """Metadata of its samples, as in the perturbed data set."""
    pngs: dict[bool, list["Future[bytes]"]]
    """PNG of each sample, for the perturbed data set (True) and for the reconstructed one (False)."""


def make_shard(
    networks: Networks,
    plan: ShardPlan,
    datasets: Sequence[DatasetDescription],
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Make one shard of each of some data sets.

    Leaves tar, ledger rows and mark of each data set, in this order, each renamed into place when it is complete. It
    can be run again: the bytes are the same.

    Args:
        networks: the networks of the run, as `ready_worker` returns them.
        plan: plan of the shard.
        datasets: the data sets that lack it.
        on_batch: called with the number of images of each finished batch.

    Raises:
        WorkError: an image is broken or not the expected one, or a value is not a finite number.
        FolderTakenError: another run has taken a folder over.
        OSError: an image cannot be read, or a file cannot be written.
    """
    coders = min(_MOST_CODING_THREADS, os.cpu_count() or 1)
    rows = LedgerRows()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(coders, thread_name_prefix="coder"))
        # After an error the pool would otherwise first work off everything that is queued.
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        # Every attempt has folders of its own: a process that was taken for dead may still be making the same shard.
        tars = [stack.enter_context(working_folder(dataset.folder)) / _tar_name(dataset, plan) for dataset in datasets]
        with ExitStack() as writing:
            writers = [writing.enter_context(open_shard(tar)) for tar in tars]
            for batch in _encoded(pool, plan, datasets, _perturbed(networks, pool, plan, datasets)):
                for dataset, writer in zip(datasets, writers, strict=True):
                    _write_batch(dataset, writer, batch)
                rows.add(batch.row, batch.samples)
                if on_batch:
                    on_batch(len(batch.samples))
        for dataset, tar in zip(datasets, tars, strict=True):
            _finish(dataset, plan, rows.columns(), tar)


def _tar_name(dataset: DatasetDescription, plan: ShardPlan) -> str:
    return shard_name(dataset.name, dataset.split, plan.shard)


def _decoded(pool: ThreadPoolExecutor, plan: ShardPlan) -> Iterator[DecodedBatch]:
    """Yield the shard's batches; while one is in use, the next is being decoded."""
    ahead: deque[tuple[int, range, list[Future[Original]]]] = deque()
    for number, indices in plan.batches:
        ahead.append((number, indices, [pool.submit(_decode, plan, index) for index in indices]))
        if len(ahead) > 1:
            yield _collected(*ahead.popleft())
    while ahead:
        yield _collected(*ahead.popleft())


def _collected(number: int, indices: range, futures: list["Future[Original]"]) -> DecodedBatch:
    return DecodedBatch(number, indices, [future.result() for future in futures])


def _decode(plan: ShardPlan, index: int) -> Original:
    record, perturbation = plan.records[index], plan.perturbation
    perturbation.check_listed(record.name)
    content = plan.source.read(record)
    sha256 = hashlib.sha256(content).hexdigest()
    perturbation.check_original(index, record.name, sha256)
    return Original(load_image(content, record.name, plan.image_size), record.label, sha256)


def _perturbed(
    networks: Networks, pool: ThreadPoolExecutor, plan: ShardPlan, datasets: Sequence[DatasetDescription]
) -> Iterator[tuple[DecodedBatch, PerturbedBatch]]:
    """Yield each batch before and after the perturbation."""
    # Where only the reconstructions are missing, no step of the ascent is taken.
    attack = any(dataset.perturbed for dataset in datasets)
    begun: deque[tuple[DecodedBatch, PendingBatch]] = deque()
    for batch in _decoded(pool, plan):
        begun.append((batch, plan.perturbation.begin(networks, batch, attack=attack)))
        if len(begun) > networks.shifter.ahead:
            decoded, pending = begun.popleft()
            yield decoded, pending.result()
    for decoded, pending in begun:
        yield decoded, pending.result()


def _encoded(
    pool: ThreadPoolExecutor,
    plan: ShardPlan,
    datasets: Sequence[DatasetDescription],
    batches: Iterator[tuple[DecodedBatch, PerturbedBatch]],
) -> Iterator[EncodedBatch]:
    """Yield batches whose images are being encoded; each is handed on one batch late, when most of them are."""
    wanted = sorted({dataset.perturbed for dataset in datasets})
    waiting: deque[EncodedBatch] = deque()
    for decoded, perturbed in batches:
        images = {True: perturbed.perturbed_N3HW, False: perturbed.reconstructed_N3HW}
        pngs = {kind: [pool.submit(encode_png, image.numpy()) for image in images[kind]] for kind in wanted}
        waiting.append(EncodedBatch(_batch_row(perturbed), _samples(plan, decoded, perturbed), pngs))
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _batch_row(batch: PerturbedBatch) -> BatchRow:
    return BatchRow(
        delta_mean_C=batch.delta_mean_C.numpy(),
        delta_std_C=batch.delta_std_C.numpy(),
        pixel_mean_N=pixel_means(batch.perturbed_N3HW.numpy()),
    )


def _samples(plan: ShardPlan, decoded: DecodedBatch, perturbed: PerturbedBatch) -> list[SampleMetadata]:
    names = plan.source.classes.names
    return [
        SampleMetadata(
            key=plan.keys[index],
            label=original.label,
            wnid=names[original.label],
            source=plan.records[index].name,
            source_sha256=original.sha256,
            index=index,
            batch=decoded.number,
            position=position,
            batch_size=len(decoded.indices),
            clean_prediction=int(perturbed.clean_N[position]),
            reconstructed_prediction=int(perturbed.reconstructed_N[position]),
            adversarial_prediction=int(perturbed.adversarial_N[position]),
            # The cross-entropy of a certain prediction is -0.0; adding 0 makes that 0.0.
            losses=[round(float(loss), _LOSS_DIGITS) + 0.0 for loss in perturbed.losses_SN[:, position]],
        )
        for position, (index, original) in enumerate(zip(decoded.indices, decoded.originals, strict=True))
    ]


def _write_batch(dataset: DatasetDescription, writer: ShardWriter, batch: EncodedBatch) -> None:
    for sample, png in zip(batch.samples, batch.pngs[dataset.perturbed], strict=True):
        writer.write(sample if dataset.perturbed else _unperturbed(sample), png.result())


def _unperturbed(sample: SampleMetadata) -> SampleMetadata:
    """Return the metadata as a run without steps would have written it."""
    return replace(sample, adversarial_prediction=sample.reconstructed_prediction, losses=sample.losses[:1])


def _finish(dataset: DatasetDescription, plan: ShardPlan, columns: Columns, tar: Path) -> None:
    """Rename a finished tar, its ledger rows and, last, the mark of the shard into place."""
    shard, folder = plan.shard, dataset.folder
    part = tar.with_name(ledger_part_path(folder, shard).name)
    if dataset.perturbed:
        write_ledger(part, columns, {"shard": shard, "fingerprint": dataset.fingerprint})
    label = columns["samples/label"]
    last = columns[f"samples/{'adversarial' if dataset.perturbed else 'reconstructed'}_prediction"]
    mark = ShardMark(
        shard=shard,
        fingerprint=dataset.fingerprint,
        file=tar.name,
        samples=len(label),
        batches=len(columns["batch_size"]),
        bytes=tar.stat().st_size,
        sha256=digest_file(tar),
        md5=digest_file(tar, "md5"),
        ledger_sha256=digest_file(part) if dataset.perturbed else "",
        clean_right=int((columns["samples/clean_prediction"] == label).sum()),
        reconstructed_right=int((columns["samples/reconstructed_prediction"] == label).sum()),
        adversarial_right=int((last == label).sum()) if dataset.scale == 1 else NO_PREDICTION,
    )
    final = folder / tar.name
    # On an object store no lock keeps away another run that starts anew (`--overwrite`).
    if is_remote(folder):
        require_same_fingerprint(dataset)
    commit(tar, final)
    if dataset.perturbed:
        commit(part, ledger_part_path(folder, shard))
    if is_remote(folder):
        require_same_fingerprint(dataset)
    temporary = tar.with_name(mark_path(folder, shard).name)
    replace(mark, stored=stored_checksum(final)).write(temporary)
    commit(temporary, mark_path(folder, shard))
