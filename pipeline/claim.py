"""Whose an output folder is: nothing of a user's is ever taken for ours, and two runs never write to one folder."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from basics.errors import UserError
from basics.files import (
    TEMPORARY_SUFFIX,
    WORKING_PREFIX,
    remove_files,
    require_apart,
)
from basics.ownership import FolderTakenError, hold, require_owner
from basics.paths import AnyPath, is_remote
from basics.reading import exists, is_file, is_folder
from basics.remote import faults_of
from pipeline.dataset.layout import (
    CARD,
    LEDGER,
    LOG,
    MANIFEST,
    STATS,
    TIMM_INFO,
    WIDS_INDEX,
    ShardStats,
    of_each,
    read_stats,
    shard_name,
)
from pipeline.dataset.manifest import Manifest, Recorded, load_manifest, write_manifest
from pipeline.job import Job, Product

_MARK = re.compile(r"\d{6}\.(json|h5)")
_PROBE = re.compile(f"{WORKING_PREFIX}[0-9a-z_]+{re.escape(TEMPORARY_SUFFIX)}")
_AROUND = (LEDGER, TIMM_INFO, WIDS_INDEX, CARD, MANIFEST)


def check_outputs(job: Job, *, overwrite: bool) -> None:
    """Refuse output folders that hold something else or overlap with the source; nothing is written.

    Raises:
        UserError: see above.
    """
    for product in job.products:
        require_apart(job.config.source, product.folder)
        try:
            if exists(product.folder):
                _check_owner(job, product, overwrite=overwrite)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"The output {product.folder} cannot be reached ({reason}); check it.") from error


def _check_owner(job: Job, product: Product, *, overwrite: bool) -> None:
    folder = product.folder
    if is_file(folder):
        raise UserError(f"The output {folder} is a file; give a folder.")
    if all(_left_by_an_early_kill(path) for path in _entries(folder)):
        return
    manifest = _manifest(folder)
    # A lost or damaged manifest is written again, if the marks of the shards show whose it was.
    foreign = manifest is None and not all_stats(job, product)
    require_owner(
        folder,
        recorded=None if manifest is None else {"name": manifest.values["name"], **manifest.values["identity"]},
        identity={"name": product.name, **job.identity_of(product)},
        files="files that are not this data set's" if foreign else "",
        overwrite=overwrite,
    )


def _entries(folder: AnyPath) -> list[AnyPath]:
    """Return what a folder holds. A store's folder is gone as soon as another run has removed its probe from it."""
    try:
        with faults_of(folder):
            return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _left_by_an_early_kill(path: AnyPath) -> bool:
    """Whether a path is what a run leaves that has only begun, or was killed before its manifest was whole."""
    if path.name == STATS and is_folder(path):
        return not _entries(path)
    return path.name == MANIFEST + TEMPORARY_SUFFIX or _PROBE.fullmatch(path.name) is not None


def _manifest(folder: AnyPath) -> Manifest | None:
    """Return the folder's manifest, or None if there is none or it is damaged.

    Raises:
        OSError: it cannot be read, so that nothing is known of it.
    """
    try:
        return load_manifest(folder / MANIFEST, "")
    except UserError:
        return None


@contextmanager
def held(folder: AnyPath) -> Iterator[None]:
    """Hold a data-set folder for one run. On an object store nothing can be held: there, see `claim`.

    Raises:
        UserError: another run holds it, or it cannot be written.
    """
    with hold(folder):
        if not is_remote(folder):
            (folder / STATS).mkdir(exist_ok=True)
        yield


def claim(job: Job, product: Product, *, overwrite: bool) -> None:
    """Make a folder this run's own, free of what an interrupted or overwritten run left.

    On an object store the manifest is the claim: it is written only if there is none. Of two runs that begin at the
    same moment the other finds it; if it asks for the same bytes it may go on, as both end in the same.

    Raises:
        UserError: another run was quicker.
    """
    folder = product.folder
    manifest = _manifest(folder)
    if overwrite:
        _remove(job, product, manifest)
    if not is_remote(folder):
        for left in folder.glob(f"{WORKING_PREFIX}*{TEMPORARY_SUFFIX}"):
            shutil.rmtree(left, ignore_errors=True)
        remove_files([folder / (around + TEMPORARY_SUFFIX) for around in _AROUND])
    if overwrite or manifest is None:
        try:
            write_manifest(folder, job.description(product), (), "", None)
        except FileExistsError:
            require_ours(job, product)


def require_ours(job: Job, product: Product) -> None:
    """Refuse to go on in a folder that another run has made its own.

    Raises:
        FolderTakenError: see above.
    """
    manifest = _manifest(product.folder)
    if manifest is not None and manifest.values["fingerprint"] != job.fingerprint_of(product):
        raise FolderTakenError(product.folder)


def _remove(job: Job, product: Product, manifest: Manifest | None) -> None:
    """Remove a data set's own files, and nothing else that somebody may have put there."""
    folder, written = product.folder, manifest or job.description(product)
    shards = {shard_name(written.name, written.split, shard) for shard in range(written.plan.shards)}
    tars = [path for path in _entries(folder) if path.name in shards]
    marks = [path for path in _entries(folder / STATS) if _MARK.fullmatch(path.name)]
    remove_files([*tars, *marks])
    # The manifest goes last: as long as it is there, the folder can be told to be ours.
    for around in (LOG, *_AROUND):
        remove_files([folder / around])


def recorded(folder: AnyPath) -> Recorded:
    """Return what a folder's manifest remembers of earlier calls; nothing if it is damaged."""
    manifest = _manifest(folder)
    if manifest is None:
        return Recorded()
    addresses = {name: manifest.values.get(name) for name in ("config", "source", "rendered")}
    return Recorded(checksums=manifest.checksums, addresses=addresses)


def all_stats(job: Job, product: Product) -> list[ShardStats]:
    """Return the marks of a product's finished shards."""
    found = of_each(product.folder, lambda shard: read_stats(product.folder, shard), range(job.plan.shards))
    return [stats for stats in found if stats is not None and stats.fingerprint == job.fingerprint_of(product)]
