"""The work on one shard: a picklable function of a job and a number, and all that the runners ever call.

Four stages, each from an iterator to an iterator, so that the next batch is decoded and the last one encoded by
threads while the present one is computed: `decoded -> perturbed -> encoded -> written`.
"""

import errno
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from attacks.statistics import AdvBNConfig
from basics.errors import UserError, WorkError
from basics.files import commit, digest_file, working_folder
from basics.ownership import FolderTakenError
from basics.paths import is_remote
from pipeline.claim import require_ours
from pipeline.config import use_threads
from pipeline.dataset.layout import ShardStats, is_done, ledger_part_path, shard_name, stats_path, stored_checksum
from pipeline.dataset.ledger import BatchRow, Columns, LedgerRows, pixel_means, write_ledger
from pipeline.dataset.shard_file import NO_PREDICTION, SampleMetadata, ShardWriter, encode_png, open_shard
from pipeline.job import Job, Product, load_networks, unlike_here
from pipeline.outcome import Outcome, ShardResult
from pipeline.perturb import PerturbedBatch
from pipeline.replay import Replay, load_renderer
from sources.decode import load_image

_MOST_CODING_THREADS = 16
_LOSS_DIGITS = 6
_NO_ATTACK = AdvBNConfig(steps=0)


class Original(NamedTuple):
    """One decoded original."""

    image_3HW: Tensor
    sha256: str


class DecodedBatch(NamedTuple):
    """A batch before the perturbation."""

    number: int
    indices: range
    originals: list[Original]

    @property
    def image_N3HW(self) -> Tensor:
        """The 8-bit originals."""
        return torch.stack([original.image_3HW for original in self.originals])


Perturb = Callable[[DecodedBatch], PerturbedBatch]
"""The step in which an ascent and the replay of one differ."""


class EncodedBatch(NamedTuple):
    """A batch ready to be written: facts and PNGs of each product's samples, and what the ledger keeps."""

    perturbed: PerturbedBatch
    facts: list[SampleMetadata]
    pngs: dict[bool, list["Future[bytes]"]]
    """PNG of each sample, for the perturbed product (True) and for the reconstructed one (False)."""


def generate_shard(job: Job, shard: int, on_batch: Callable[[int], None] | None = None) -> ShardResult:
    """Make one shard of every product of a job, or say why not.

    Leaves tar, ledger rows and mark of each product, in this order, each renamed into place when it is whole. May be
    run twice: the bytes are the same.

    Args:
        job: the run.
        shard: number of the shard.
        on_batch: told the number of images of each finished batch; for runners in the same process.
    """
    try:
        use_threads(job.threads)
        difference = unlike_here(job)
        if difference:
            return ShardResult(shard=shard, outcome=Outcome.WRONG_ENVIRONMENT, reason=difference)
        _make_shard(job, shard, on_batch)
    except FolderTakenError as error:
        return ShardResult(shard=shard, outcome=Outcome.FATAL, reason=f"shard {shard}: {error}")
    except (WorkError, UserError) as error:
        return ShardResult(shard=shard, outcome=Outcome.FAILED, reason=f"shard {shard}: {error}")
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        outcome = Outcome.MACHINE_FAULT if full else Outcome.TRANSIENT
        return ShardResult(shard=shard, outcome=outcome, reason=f"shard {shard}: {error}.")
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        message = (
            f"shard {shard}: out of memory ({error}). A smaller batch would change the images; "
            "use --precision bf16 or a larger device."
        )
        return ShardResult(shard=shard, outcome=Outcome.MACHINE_FAULT, reason=message)
    return ShardResult(shard=shard)


def _make_shard(job: Job, shard: int, on_batch: Callable[[int], None] | None) -> None:
    # A shard that is there in one product but not in the other is made for the other only.
    products = [product for product in job.products if not is_done(product.folder, shard, job.fingerprint_of(product))]
    if not products:
        return
    coders = min(_MOST_CODING_THREADS, os.cpu_count() or 1)
    rows = LedgerRows()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(coders, thread_name_prefix="coder"))
        # Left by an error, the pool would otherwise first work off everything that is queued.
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        # Folders of this attempt's own: the same shard may be in work elsewhere, by a process taken for dead.
        works = {product: stack.enter_context(working_folder(product.folder)) for product in products}
        attack = job.config.attack if any(product.perturbed for product in products) else _NO_ATTACK
        perturb = _ascent(job, attack) if job.replay is None else _replay(job, job.replay)
        perturbed = ((batch, perturb(batch)) for batch in _decoded(job, pool, shard))
        with ExitStack() as tars:
            writers = {
                product: tars.enter_context(open_shard(work / _tar_name(job, product, shard)))
                for product, work in works.items()
            }
            for batch in _encoded(job, pool, {product.perturbed for product in products}, perturbed):
                _write_batch(writers, batch)
                rows.add(_batch_row(batch.perturbed), batch.facts)
                if on_batch:
                    on_batch(len(batch.facts))
        for product, work in works.items():
            _finish(job, product, shard, rows.columns(), work)


def _tar_name(job: Job, product: Product, shard: int) -> str:
    return shard_name(product.name, job.config.split, shard)


def _decoded(job: Job, pool: ThreadPoolExecutor, shard: int) -> Iterator[DecodedBatch]:
    """Yield the shard's batches; while one is in use, the next is being decoded."""
    ahead: deque[tuple[int, range, list[Future[Original]]]] = deque()
    for number, indices in job.plan.batches_of(shard):
        ahead.append((number, indices, [pool.submit(_decode, job, index) for index in indices]))
        if len(ahead) > 1:
            yield _collected(*ahead.popleft())
    while ahead:
        yield _collected(*ahead.popleft())


def _collected(number: int, indices: range, futures: list["Future[Original]"]) -> DecodedBatch:
    return DecodedBatch(number, indices, [future.result() for future in futures])


def _decode(job: Job, index: int) -> Original:
    record = job.records[index]
    if job.replay:
        job.replay.require_there(record.name)
    content = job.source.read(record)
    sha256 = hashlib.sha256(content).hexdigest()
    if job.replay:
        job.replay.require_same(index, record.name, sha256)
    return Original(load_image(content, record.name, job.config.image_size), sha256)


def _ascent(job: Job, attack: AdvBNConfig) -> Perturb:
    """Return the step that finds out how to perturb a batch."""
    perturber = load_networks(job.config, job.source.classes.count).perturber

    def perturb(batch: DecodedBatch) -> PerturbedBatch:
        label_N = torch.tensor([job.records[index].label for index in batch.indices])
        return perturber(batch.image_N3HW, label_N, attack)

    return perturb


def _replay(job: Job, replay: Replay) -> Perturb:
    """Return the step that perturbs a batch as a ledger tells."""
    shifter = load_renderer(job.config).shifter

    def perturb(batch: DecodedBatch) -> PerturbedBatch:
        return replay.perturbed(shifter, batch.number, batch.indices, batch.image_N3HW)

    return perturb


def _encoded(
    job: Job,
    pool: ThreadPoolExecutor,
    wanted: set[bool],
    batches: Iterator[tuple[DecodedBatch, PerturbedBatch]],
) -> Iterator[EncodedBatch]:
    """Yield batches whose images are being encoded; each is handed on one batch late, when they mostly are."""
    waiting: deque[EncodedBatch] = deque()
    for decoded, perturbed in batches:
        images = {True: perturbed.perturbed_N3HW, False: perturbed.reconstructed_N3HW}
        pngs = {kind: [pool.submit(encode_png, image.numpy()) for image in images[kind]] for kind in sorted(wanted)}
        waiting.append(EncodedBatch(perturbed, _sample_facts(job, decoded, perturbed), pngs))
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _sample_facts(job: Job, decoded: DecodedBatch, perturbed: PerturbedBatch) -> list[SampleMetadata]:
    names = job.source.classes.names
    return [
        SampleMetadata(
            key=job.keys[index],
            label=job.records[index].label,
            wnid=names[job.records[index].label],
            source=job.records[index].name,
            source_sha256=original.sha256,
            index=index,
            batch=decoded.number,
            position=position,
            batch_size=len(decoded.indices),
            clean_prediction=int(perturbed.clean_N[position]),
            reconstructed_prediction=int(perturbed.reconstructed_N[position]),
            adversarial_prediction=int(perturbed.adversarial_N[position]),
            # The cross-entropy of a sure answer is -0.0; adding 0 makes that 0.0.
            losses=[round(float(loss), _LOSS_DIGITS) + 0.0 for loss in perturbed.losses_SN[:, position]],
        )
        for position, (index, original) in enumerate(zip(decoded.indices, decoded.originals, strict=True))
    ]


def _write_batch(writers: dict[Product, ShardWriter], batch: EncodedBatch) -> None:
    for product, writer in writers.items():
        for facts, png in zip(batch.facts, batch.pngs[product.perturbed], strict=True):
            writer.write(facts if product.perturbed else _unperturbed(facts), png.result())


def _batch_row(batch: PerturbedBatch) -> BatchRow:
    return BatchRow(
        delta_mean_C=batch.delta_mean_C.numpy(),
        delta_std_C=batch.delta_std_C.numpy(),
        pixel_mean_N=pixel_means(batch.perturbed_N3HW.numpy()),
    )


def _unperturbed(facts: SampleMetadata) -> SampleMetadata:
    """The facts as a run with no steps would have written them."""
    return SampleMetadata(
        **{
            **vars(facts),
            "adversarial_prediction": facts.reconstructed_prediction,
            "losses": facts.losses[:1],
        }
    )


def _finish(job: Job, product: Product, shard: int, columns: Columns, work: Path) -> None:
    """Bring a product's tar, its ledger rows and, last, the mark that the shard is done from `work` to their places."""
    tar = work / _tar_name(job, product, shard)
    part = work / ledger_part_path(product.folder, shard).name
    if product.perturbed:
        write_ledger(part, columns, {"shard": shard, "fingerprint": job.fingerprint_of(product)})
    label = columns["samples/label"]
    seen = columns[f"samples/{'adversarial' if product.perturbed else 'reconstructed'}_prediction"]
    stats = ShardStats(
        shard=shard,
        fingerprint=job.fingerprint_of(product),
        file=tar.name,
        samples=job.plan.samples_in(shard),
        batches=len(columns["batch_size"]),
        bytes=tar.stat().st_size,
        sha256=digest_file(tar),
        md5=digest_file(tar, "md5"),
        ledger_sha256=digest_file(part) if product.perturbed else "",
        clean_right=int((columns["samples/clean_prediction"] == label).sum()),
        reconstructed_right=int((columns["samples/reconstructed_prediction"] == label).sum()),
        adversarial_right=int((seen == label).sum()) if job.scale == 1 else NO_PREDICTION,
    )
    placed = product.folder / tar.name
    _require_still_ours(job, product)
    commit(tar, placed)
    if product.perturbed:
        commit(part, ledger_part_path(product.folder, shard))
    _require_still_ours(job, product)
    mark = work / stats_path(product.folder, shard).name
    replace(stats, stored=stored_checksum(placed)).write(mark)
    commit(mark, stats_path(product.folder, shard))


def _require_still_ours(job: Job, product: Product) -> None:
    """On an object store no lock keeps another run from starting anew there (`--overwrite`) while this one works."""
    if is_remote(product.folder):
        require_ours(job, product)
