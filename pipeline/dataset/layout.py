"""What lies where in a data-set folder, and when a shard counts as done."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TypeVar, cast

from upath import UPath

from basics.files import digest_file, read_sealed, write_sealed
from basics.paths import AnyPath, is_remote
from basics.reading import is_file
from basics.remote import remote_info

MANIFEST = "manifest.json"
LEDGER = "perturbations.h5"
TIMM_INFO = "_info.json"
WIDS_INDEX = "wids.json"
CARD = "README.md"
READER_FILES = (TIMM_INFO, WIDS_INDEX, CARD)
"""Files for readers other than plain webdataset, and for people."""
STATS = "stats"
LOG = "log.jsonl"

_REQUESTS = 32
"""Requests to an object store at the same time."""
_KEPT = ("ETag", "md5Hash", "crc32c", "blob_id")
"""What S3, Google's store and Hugging Face's hub call the checksum of a file's content."""
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
Answer = TypeVar("Answer")
Folder = TypeVar("Folder", bound=AnyPath)


def shard_name(name: str, split: str, shard: int) -> str:
    """Return the file name of a shard."""
    return f"{name}-{split}-{shard:06d}.tar"


def ledger_part_path(folder: Folder, shard: int) -> Folder:
    """Return where one shard's rows of the ledger are."""
    return cast("Folder", folder / STATS / f"{shard:06d}.h5")


def stats_path(folder: Folder, shard: int) -> Folder:
    """Return where the mark of a finished shard is."""
    return cast("Folder", folder / STATS / f"{shard:06d}.json")


@dataclass(frozen=True, kw_only=True)
class ShardStats:
    """The mark of a finished shard, written last. It holds no time, so that a second run writes the same bytes."""

    shard: int
    fingerprint: str
    """Of the run that wrote it."""
    file: str
    samples: int
    batches: int
    bytes: int
    sha256: str
    """Of the tar."""
    md5: str
    """Of the tar; wids wants it."""
    ledger_sha256: str
    """Of the shard's part of the ledger; empty where there is none."""
    clean_right: int
    """Originals that the attacked classifier got right."""
    reconstructed_right: int
    """... reconstructions."""
    adversarial_right: int
    """... perturbed images; -1 if it was not asked (a ledger rendered at another scale than 1)."""
    stored: str = ""
    """What the object store says of the tar's content (such as an ETag); empty on a disk, or if it says nothing."""

    def write(self, path: AnyPath) -> None:
        """Write the mark."""
        write_sealed(path, asdict(self))


def stored_checksum(path: AnyPath) -> str:
    """Return what an object store says of a file's content without reading it; empty on a disk.

    Raises:
        OSError: the file is not there, or the store does not answer.
    """
    return _stored(path)[1] if is_remote(path) else ""


def _stored(path: UPath) -> tuple[int, str]:
    told = remote_info(path)
    kept = next((told[name] for name in _KEPT if told.get(name)), "")
    return int(told["size"]), str(kept).strip('"')


def read_stats(folder: AnyPath, shard: int) -> ShardStats | None:
    """Return the mark of a shard, or None if there is none or it is damaged.

    Raises:
        OSError: it cannot be read, so that nothing is known of it.
    """
    try:
        return ShardStats(**read_sealed(stats_path(folder, shard)))
    except (*_ABSENT, ValueError, TypeError):
        return None


def is_done(folder: AnyPath, shard: int, fingerprint: str) -> bool:
    """Whether a shard is finished: marked by this run, its tar and ledger rows being those of the mark.

    Their checksums are compared; of a tar on an object store its size and the checksum that the store keeps, so that it
    is not downloaded.

    Raises:
        OSError: disk or store do not answer.
    """
    stats = read_stats(folder, shard)
    if stats is None or stats.fingerprint != fingerprint:
        return False
    return agrees(folder / stats.file, stats) and has_rows(folder, stats)


def has_rows(folder: AnyPath, stats: ShardStats) -> bool:
    """Whether a shard's part of the ledger is the one that its mark tells of, if it tells of one.

    Raises:
        OSError: disk or store do not answer.
    """
    part = ledger_part_path(folder, stats.shard)
    return not stats.ledger_sha256 or (is_file(part) and digest_file(part) == stats.ledger_sha256)


def agrees(tar: AnyPath, stats: ShardStats) -> bool:
    """Whether a tar is the one that its mark tells of; it is not downloaded from a store that keeps a checksum.

    Raises:
        OSError: disk or store do not answer.
    """
    alike, proved = _compared(tar, stats)
    return alike and (proved or digest_file(tar) == stats.sha256)


def looks_like(tar: AnyPath, stats: ShardStats) -> bool:
    """Whether a tar has the size in its mark and, on an object store, the checksum that the store kept, if it does.

    Raises:
        OSError: disk or store do not answer.
    """
    return _compared(tar, stats)[0]


def _compared(tar: AnyPath, stats: ShardStats) -> tuple[bool, bool]:
    """Return whether a tar that is not read looks like the one of its mark, and whether a kept checksum proves it."""
    try:
        size, stored = _stored(tar) if is_remote(tar) else (tar.stat().st_size, "")
    except _ABSENT:
        return False, False
    # What was copied to S3 from a disk has no checksum of the store's in its mark, but its ETag mostly is the MD5.
    proved = bool(stored) and stored in {stats.stored, stats.md5}
    return size == stats.bytes and (proved or not (stored and stats.stored)), proved


def of_each(folder: AnyPath, function: Callable[[int], Answer], shards: Iterable[int]) -> list[Answer]:
    """Return what a function says of each shard in a folder; many at a time on an object store."""
    if not is_remote(folder):
        return [function(shard) for shard in shards]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(function, shards))
