"""Claiming output folders: a user's files are never taken for ours, and two runs never write to one folder."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from basics.errors import UserError
from basics.files import (
    TEMPORARY_SUFFIX,
    WORKING_PREFIX,
    remove_files,
    require_apart,
)
from basics.ownership import ANOTHER_OUT, FolderTakenError, lock_folder, require_owner
from basics.paths import Address, AnyPath, is_remote
from basics.reading import exists, is_file, is_folder
from basics.remote import os_errors_only
from pipeline.dataset.layout import (
    LEDGER,
    LOG,
    MANIFEST,
    READER_FILES,
    STATS,
    shard_name,
)
from pipeline.dataset.manifest import (
    DatasetDescription,
    Manifest,
    marked_shards,
    read_intact_manifest,
    write_manifest,
)

_MARK = re.compile(r"\d{6}\.(json|h5)")
_PROBE = re.compile(f"{WORKING_PREFIX}[0-9a-z_]+{re.escape(TEMPORARY_SUFFIX)}")
_BESIDE_SHARDS = (LEDGER, *READER_FILES, MANIFEST)


def check_outputs(datasets: Iterable[DatasetDescription], source: Address | None, *, overwrite: bool) -> None:
    """Refuse output folders that hold something else or overlap with the source; nothing is written.

    Args:
        datasets: the data sets of a run.
        source: address of its images; None for the drawn world.
        overwrite: whether data sets of other runs are to be overwritten.

    Raises:
        UserError: see above.
    """
    for dataset in datasets:
        require_apart(source, dataset.folder)
        with refusing_unreachable(dataset.folder):
            if exists(dataset.folder):
                _check_owner(dataset, overwrite=overwrite)


@contextmanager
def refusing_unreachable(folder: AnyPath) -> Iterator[None]:
    """Refuse an output folder that cannot be read inside the block.

    Raises:
        UserError: see above.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"The output {folder} cannot be reached ({error.strerror or error}); check it.") from error


@dataclass(frozen=True)
class BegunDataset:
    """What an output folder says of a data set that was begun there."""

    arithmetic: Mapping[str, Any] | None
    """The arithmetic in its manifest's identity; None if the manifest is lost or damaged, or there is none."""
    has_marks: bool
    """Whether there are marks of shards."""


def begun_dataset(folder: AnyPath) -> BegunDataset:
    """Return what a folder says of a data set that was begun there, whosever it is.

    Raises:
        UserError: the folder cannot be reached.
    """
    with refusing_unreachable(folder):
        manifest = read_intact_manifest(folder)
        arithmetic = None if manifest is None else manifest.values["identity"].get("arithmetic")
        return BegunDataset(arithmetic, any(_MARK.fullmatch(path.name) for path in _entries(folder / STATS)))


def _check_owner(dataset: DatasetDescription, *, overwrite: bool) -> None:
    folder = dataset.folder
    if is_file(folder):
        raise UserError(f"The output {folder} is a file; give a folder.")
    if all(_left_before_manifest(path) for path in _entries(folder)):
        return
    manifest = read_intact_manifest(folder)
    # A lost or damaged manifest is written again if the marks show that the shards are this data set's.
    foreign = manifest is None and not marked_shards(dataset)
    require_owner(
        folder,
        recorded=None if manifest is None else {"name": manifest.name, **manifest.values["identity"]},
        identity={"name": dataset.name, **dataset.identity},
        files="files that are not this data set's" if foreign else "",
        overwrite=overwrite,
    )


def _entries(folder: AnyPath) -> list[AnyPath]:
    """Return what a folder holds. On a store, an empty folder disappears when another run removes its probe from it."""
    try:
        with os_errors_only(folder):
            return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _left_before_manifest(path: AnyPath) -> bool:
    """Whether a path may be left by a run that has only begun, or was killed before its manifest was complete."""
    if path.name == STATS and is_folder(path):
        return not _entries(path)
    return path.name == MANIFEST + TEMPORARY_SUFFIX or _PROBE.fullmatch(path.name) is not None


@contextmanager
def lock_output(folder: AnyPath, advice: str = ANOTHER_OUT) -> Iterator[None]:
    """Lock a data-set folder for one run. On an object store nothing can be locked: there, see `claim`.

    Raises:
        UserError: another run has locked it, or it cannot be written.
    """
    with lock_folder(folder, advice):
        if not is_remote(folder):
            (folder / STATS).mkdir(exist_ok=True)
        yield


def claim(dataset: DatasetDescription, *, overwrite: bool) -> None:
    """Make a folder this run's own, and remove what an interrupted or overwritten run has left there.

    On an object store the manifest is the claim: it is written only if there is none. Of two runs that begin at the
    same moment, the second finds it. It may go on if it is to make the same bytes, since both then end alike.

    Raises:
        UserError: another run has claimed the folder.
    """
    folder = dataset.folder
    manifest = read_intact_manifest(folder)
    if overwrite:
        _remove(dataset, manifest)
    if not is_remote(folder):
        for left in folder.glob(f"{WORKING_PREFIX}*{TEMPORARY_SUFFIX}"):
            shutil.rmtree(left, ignore_errors=True)
        remove_files([folder / (name + TEMPORARY_SUFFIX) for name in _BESIDE_SHARDS])
    if overwrite or manifest is None:
        try:
            write_manifest(dataset, (), "", None)
        except FileExistsError:
            require_same_fingerprint(dataset)


def require_same_fingerprint(dataset: DatasetDescription) -> None:
    """Refuse to go on in a folder that another run has claimed since.

    Raises:
        FolderTakenError: see above.
    """
    manifest = read_intact_manifest(dataset.folder)
    if manifest is not None and manifest.fingerprint != dataset.fingerprint:
        raise FolderTakenError(dataset.folder)


def _remove(dataset: DatasetDescription, manifest: Manifest | None) -> None:
    """Remove the files of the data set in a folder, and nothing else that somebody may have put there."""
    folder, existing = dataset.folder, manifest or dataset
    shards = {shard_name(existing.name, existing.split, shard) for shard in range(existing.plan.shards)}
    tars = [path for path in _entries(folder) if path.name in shards]
    marks = [path for path in _entries(folder / STATS) if _MARK.fullmatch(path.name)]
    remove_files([*tars, *marks])
    # The manifest is removed last, because it shows that the folder is ours.
    for name in (LOG, *_BESIDE_SHARDS):
        remove_files([folder / name])
