"""Comparing the files of a data set with its marks, manifest and ledger; nothing is changed."""

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from basics.errors import UserError, WorkError
from basics.files import digest_file
from basics.paths import AnyPath, is_remote
from basics.progress import progress
from basics.reading import is_file, local_copy
from basics.remote import os_errors_only
from pipeline.dataset.layout import (
    LEDGER,
    ShardMark,
    has_rows,
    ledger_part_path,
    looks_like,
    mark_path,
    read_mark,
    shard_name,
)
from pipeline.dataset.ledger import Columns, load_ledger
from pipeline.dataset.manifest import Manifest, read_manifest
from pipeline.dataset.shard_file import MEMBERS, StoredSample, read_shard


@dataclass(frozen=True)
class Problem:
    """A difference between a data set and what its run has recorded."""

    shard: int | None
    """Number of the shard; None for a problem of the whole data set."""
    text: str
    """File and fault, in one sentence."""


def find_problems(folder: AnyPath, *, quick: bool = False) -> list[Problem]:
    """Compare every file of a data set with its marks, and marks, samples and ledger with each other.

    Args:
        folder: the data set.
        quick: compare marks, sizes and the checksums that an object store keeps, and read no shard.

    Raises:
        UserError: the folder is not a data set.
        WorkError: the disk or store failed, which says nothing about the data set.
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
    plan = manifest.plan
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
    """Compare the shards of a finished data set and its ledger with the checksums in its manifest.

    Shards in an object store are not downloaded: their sizes and the checksums that the store keeps are compared.

    Raises:
        OSError: a file cannot be read.
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
        mark = read_mark(folder, entry["shard"])
        return mark is not None and mark.sha256 == entry["sha256"] and looks_like(tar, mark)
    same_size: bool = tar.stat().st_size == entry["bytes"]
    return same_size and digest_file(tar) == entry["sha256"]


def _ledger_problems(folder: AnyPath, manifest: Manifest) -> list[Problem]:
    path = folder / LEDGER
    if not manifest.perturbed or not manifest.complete:
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
    """Return tars that are not of the data set, but that readers would take for its shards by their names."""
    name, split = manifest.name, manifest.split
    expected = {shard_name(name, split, shard) for shard in range(manifest.plan.shards)}
    with os_errors_only(folder):
        found = {path.name for path in folder.glob(f"{name}-{split}-*.tar")}
    return [
        Problem(None, f"{stray} is no shard of this data set, and is left alone; move it away.")
        for stray in sorted(found - expected)
    ]


def _shard_problems(folder: AnyPath, manifest: Manifest, shard: int, *, quick: bool) -> Iterator[str]:
    mark = read_mark(folder, shard)
    recorded = manifest.checksums.get(shard)
    name = shard_name(manifest.name, manifest.split, shard)
    if mark is None:
        yield f"{mark_path(folder, shard).name}: the mark of shard {shard} is missing or damaged."
    elif mark.fingerprint != manifest.fingerprint or (recorded and mark.sha256 != recorded):
        yield f"{mark_path(folder, shard).name}: the mark of shard {shard} does not agree with the manifest."
    tar = folder / name
    if not is_file(tar):
        yield f"{name}: the shard is missing."
    elif quick:
        if mark and not looks_like(tar, mark):
            yield f"{name}: its size, or the checksum that the store keeps, is not the one recorded."
    else:
        yield from _read_problems(folder, manifest, mark, tar, shard)
    if mark and manifest.perturbed and not has_rows(folder, mark):
        part = ledger_part_path(folder, shard)
        yield f"{part.name}: the shard's part of the ledger is missing or damaged: it is not the one of its mark."


def _read_problems(
    folder: AnyPath, manifest: Manifest, mark: ShardMark | None, tar: AnyPath, shard: int
) -> Iterator[str]:
    """Read all of a shard that exists and yield its problems."""
    columns = None
    if manifest.perturbed and is_file(part := ledger_part_path(folder, shard)):
        with suppress(UserError):  # A damaged part is reported by its checksum.
            columns = load_ledger(part).columns
    expected = manifest.plan.samples_in(shard)
    with local_copy(tar) as copy:
        if digest_file(copy) != (manifest.checksums.get(shard) or (mark.sha256 if mark else "")):
            yield f"{tar.name}: the checksum is not the one recorded."
        yield from _content_problems(copy, columns, expected)


def _content_problems(tar: Path, columns: Columns | None, expected: int) -> Iterator[str]:
    """Yield the problems inside a tar, sample by sample."""
    count = 0
    try:
        for sample in read_shard(tar):
            yield from (f"{tar.name}: {text}" for text in _sample_problems(sample, columns, count))
            count += 1
    except (tarfile.TarError, OSError, EOFError) as error:
        yield f"{tar.name}: not a complete tar ({error})."
        return
    if count != expected:
        yield f"{tar.name}: {count} samples instead of {expected}."


def _sample_problems(sample: StoredSample, columns: Columns | None, row: int) -> Iterator[str]:
    missing = [name for name in MEMBERS if name not in sample.members]
    if missing:
        yield f"sample {sample.key} has no {', '.join(missing)}."
        return
    try:
        label, metadata = sample.label, sample.metadata
        with Image.open(io.BytesIO(sample.members["png"])) as image:
            image.load()
    except (OSError, ValueError, SyntaxError) as error:
        yield f"sample {sample.key} cannot be read ({error})."
        return
    if metadata.get("key") != sample.key or metadata.get("label") != label:
        yield f"sample {sample.key}: its label or key differs between .cls and .json."
    if columns is None:
        return
    if row >= len(columns["samples/key"]) or columns["samples/key"][row].decode() != sample.key:
        yield f"sample {sample.key} is not the one at this position in the ledger."
    elif int(columns["samples/label"][row]) != label:
        yield f"sample {sample.key} has the label {label}, but the ledger has {columns['samples/label'][row]}."
