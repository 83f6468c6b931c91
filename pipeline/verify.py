"""Reopening everything that a run wrote, and mending what is damaged."""

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from basics.errors import UserError, WorkError
from basics.files import digest_file
from basics.paths import AnyPath, as_path, is_remote
from basics.progress import progress
from basics.reading import is_file, local_copy
from basics.remote import faults_of
from pipeline.dataset.layout import (
    LEDGER,
    ShardStats,
    has_rows,
    ledger_part_path,
    looks_like,
    read_stats,
    shard_name,
    stats_path,
)
from pipeline.dataset.ledger import Columns, load_ledger
from pipeline.dataset.manifest import Manifest, read_manifest
from pipeline.dataset.shard_file import MEMBERS, StoredSample, read_shard
from pipeline.job import Job, Product, prepare
from pipeline.render import RenderRequest, render_job
from pipeline.renderable import read_renderable
from pipeline.run import RunReport, run


@dataclass(frozen=True)
class Problem:
    """Something that is not as the run left it."""

    shard: int | None
    """Which shard; None for what concerns the whole data set."""
    text: str
    """What and where, in one sentence."""


def verify(folder: AnyPath, *, quick: bool = False) -> list[Problem]:
    """Compare every file of a data set with its marks, and marks, samples and ledger with each other.

    Args:
        folder: the data set.
        quick: look at marks, sizes and checksums that an object store keeps, and read no shard.

    Raises:
        UserError: the folder is no data set.
        WorkError: disk or store did not answer, which says nothing about the data set.
    """
    manifest = read_manifest(folder)
    try:
        return _problems(folder, manifest, quick=quick)
    except OSError as error:
        raise WorkError(
            f"The data set {folder} could not be checked to the end ({error}); nothing was changed. Check again once "
            "it can be read."
        ) from error


def _problems(folder: AnyPath, manifest: Manifest, *, quick: bool) -> list[Problem]:
    plan = manifest.config.plan(manifest.values["samples"])
    problems = []
    if not manifest.complete:
        problems.append(Problem(None, "The run is not finished; give the command that started it again."))
    problems += _ledger_problems(folder, manifest)
    problems += _file_problems(folder, manifest)
    problems += _stray_problems(folder, manifest)
    with progress("verify", plan.shards, "shards") as advance:
        for shard in range(plan.shards):
            problems += [Problem(shard, text) for text in _shard_problems(folder, manifest, shard, quick=quick)]
            advance()
    return problems


def checksum_problems(folder: AnyPath, manifest: Manifest) -> list[Problem]:
    """Compare the shards of a finished data set and its ledger with the checksums in its manifest; open nothing.

    Shards in an object store are not read for it: their sizes, and the checksums that the store keeps, have to do.

    Raises:
        OSError: disk or store do not answer.
    """
    problems = _ledger_problems(folder, manifest)
    with progress("checksums", len(manifest.shards), "shards") as advance:
        for entry in manifest.shards:
            tar = folder / entry["file"]
            if not is_file(tar):
                problems.append(Problem(entry["shard"], f"{tar.name}: the shard is missing."))
            elif not _is_recorded(folder, tar, entry):
                problems.append(Problem(entry["shard"], f"{tar.name}: the checksum is not the one recorded."))
            advance()
    return problems


def _is_recorded(folder: AnyPath, tar: AnyPath, entry: Mapping[str, Any]) -> bool:
    if is_remote(tar):
        stats = read_stats(folder, entry["shard"])
        return stats is not None and stats.sha256 == entry["sha256"] and looks_like(tar, stats)
    same_size: bool = tar.stat().st_size == entry["bytes"]
    return same_size and digest_file(tar) == entry["sha256"]


def _ledger_problems(folder: AnyPath, manifest: Manifest) -> list[Problem]:
    path = folder / LEDGER
    if not manifest.values["perturbed"] or not manifest.complete:
        return []
    if not is_file(path):
        return [Problem(None, f"The ledger {LEDGER} is missing.")]
    if digest_file(path) != manifest.values["ledger_sha256"]:
        return [Problem(None, f"The ledger {LEDGER} is damaged: its checksum is not the manifest's.")]
    samples = manifest.values["samples"]
    found = len(load_ledger(path).keys)
    return [] if found == samples else [Problem(None, f"The ledger has {found} samples instead of {samples}.")]


def _file_problems(folder: AnyPath, manifest: Manifest) -> list[Problem]:
    return [
        Problem(None, f"The file {name} is missing or damaged: its checksum is not the manifest's.")
        for name, sha256 in manifest.values["files"].items()
        if not is_file(folder / name) or digest_file(folder / name) != sha256
    ]


def _stray_problems(folder: AnyPath, manifest: Manifest) -> list[Problem]:
    """Readers take every tar that fits the pattern."""
    name, split = manifest.values["name"], manifest.config.split
    shards = manifest.config.plan(manifest.values["samples"]).shards
    expected = {shard_name(name, split, shard) for shard in range(shards)}
    with faults_of(folder):
        found = {path.name for path in folder.glob(f"{name}-{split}-*.tar")}
    return [
        Problem(None, f"{stray} is no shard of this data set, and is left alone; move it away.")
        for stray in sorted(found - expected)
    ]


def _shard_problems(folder: AnyPath, manifest: Manifest, shard: int, *, quick: bool) -> Iterator[str]:
    stats = read_stats(folder, shard)
    recorded = manifest.recorded.get(shard)
    name = shard_name(manifest.values["name"], manifest.config.split, shard)
    if stats is None:
        yield f"{stats_path(folder, shard).name}: the mark of shard {shard} is missing or damaged."
    elif stats.fingerprint != manifest.values["fingerprint"] or (recorded and stats.sha256 != recorded):
        yield f"{stats_path(folder, shard).name}: the mark of shard {shard} does not agree with the manifest."
    tar = folder / name
    if not is_file(tar):
        yield f"{name}: the shard is missing."
    elif quick:
        if stats and not looks_like(tar, stats):
            yield f"{name}: its size, or the checksum that the store keeps, is not the one recorded."
    else:
        yield from _read_problems(folder, manifest, stats, tar, shard)
    if stats and manifest.values["perturbed"] and not has_rows(folder, stats):
        part = ledger_part_path(folder, shard)
        yield f"{part.name}: the shard's part of the ledger is missing or damaged: it is not the one of its mark."


def _read_problems(
    folder: AnyPath, manifest: Manifest, stats: ShardStats | None, tar: AnyPath, shard: int
) -> Iterator[str]:
    """What is wrong with a shard that is there, found by reading all of it."""
    columns = None
    if manifest.values["perturbed"] and is_file(part := ledger_part_path(folder, shard)):
        with suppress(UserError):  # Its checksum tells of damage, too.
            columns = load_ledger(part).columns
    expected = manifest.config.plan(manifest.values["samples"]).samples_in(shard)
    with local_copy(tar) as copy:
        if digest_file(copy) != (manifest.recorded.get(shard) or (stats.sha256 if stats else "")):
            yield f"{tar.name}: the checksum is not the one recorded."
        yield from _content_problems(copy, columns, expected)


def _content_problems(tar: Path, columns: Columns | None, expected: int) -> Iterator[str]:
    """What is wrong inside a tar, sample by sample."""
    count = 0
    try:
        for sample in read_shard(tar):
            yield from (f"{tar.name}: {text}" for text in _sample_problems(sample, columns, count))
            count += 1
    except (tarfile.TarError, OSError, EOFError) as error:
        yield f"{tar.name}: not a whole tar ({error})."
        return
    if count != expected:
        yield f"{tar.name}: {count} samples instead of {expected}."


def _sample_problems(sample: StoredSample, columns: Columns | None, row: int) -> Iterator[str]:
    missing = [name for name in MEMBERS if name not in sample.members]
    if missing:
        yield f"sample {sample.key} has no {', '.join(missing)}."
        return
    try:
        label, facts = sample.label, sample.facts
        with Image.open(io.BytesIO(sample.members["png"])) as image:
            image.load()
    except (OSError, ValueError, SyntaxError) as error:
        yield f"sample {sample.key} cannot be read ({error})."
        return
    if facts.get("key") != sample.key or facts.get("label") != label:
        yield f"sample {sample.key}: its label or key differs between .cls and .json."
    if columns is None:
        return
    if row >= len(columns["samples/key"]) or columns["samples/key"][row].decode() != sample.key:
        yield f"sample {sample.key} is not the one that the ledger has in this place."
    elif int(columns["samples/label"][row]) != label:
        yield f"sample {sample.key} has the label {label}, but the ledger has {columns['samples/label'][row]}."


def repair(folder: AnyPath, problems: list[Problem], moved: Mapping[str, Any] | None = None) -> RunReport:
    """Make again what is damaged, and prove that the bytes are the ones that the manifest recorded.

    Source, autoencoder, classifier and ledger must be unchanged, and where the manifest says or `moved` to: names of
    GenerationConfig's fields, or `ledger`, with their new addresses.

    Raises:
        UserError: they are not.
        WorkError: the run failed, or software or hardware of today give other bytes.
    """
    job = job_of(folder, read_manifest(folder), moved or {})
    return run(job, remake={problem.shard for problem in problems if problem.shard is not None})


def job_of(folder: AnyPath, manifest: Manifest, moved: Mapping[str, Any]) -> Job:
    """Rebuild the job that made a data set, what was `moved` since at its new address.

    Raises:
        UserError: its source or weights are no longer there.
    """
    name, perturbed = manifest.product
    rendered = manifest.values.get("rendered")
    ledger = moved.get("ledger")
    if ledger and not rendered:
        raise UserError(f"The data set {folder} was not rendered from a ledger; leave out --ledger.")
    config = replace(manifest.config, **{field: value for field, value in moved.items() if field != "ledger"})
    if rendered:
        kept = ("source", "autoencoder", "labels", "order", "device", "precision", "threads")
        how = {field: getattr(config, field) for field in kept}
        request = RenderRequest(ledger=as_path(ledger or rendered["ledger"]), scale=rendered["scale"], **how)
        content = read_renderable(request.ledger)
        if digest_file(request.ledger) != rendered["ledger_sha256"]:
            raise UserError(f"The ledger {request.ledger} is not the one of {folder}; name that one with --ledger.")
        return render_job(request, content, folder)
    return prepare(config, (Product(folder=folder.absolute(), name=name, perturbed=perturbed),))
