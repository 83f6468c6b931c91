"""What lies where in a data-set folder, and when a shard counts as done."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TypeVar, cast

from upath import UPath

from basics.files import digest_file, read_sealed, write_sealed
from basics.places import AnyPath, is_remote
from basics.remote import file_system, plain_faults

MANIFEST = "manifest.json"
LEDGER = "perturbations.h5"
TIMM_INFO = "_info.json"
WIDS_INDEX = "wids.json"
CARD = "README.md"
STATS = "stats"
LOG = "log.jsonl"

_REQUESTS = 32
"""Requests to an object store at the same time."""
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
    with plain_faults(path):
        told = file_system(path).info(path.path)
    return int(told["size"]), str(told.get("ETag") or told.get("md5Hash") or told.get("crc32c") or "").strip('"')


def read_stats(folder: AnyPath, shard: int) -> ShardStats | None:
    """Return the mark of a shard, or None if there is no readable one."""
    try:
        return ShardStats(**read_sealed(stats_path(folder, shard)))
    except (OSError, ValueError, TypeError):
        return None


def is_done(folder: AnyPath, shard: int, fingerprint: str) -> bool:
    """Whether a shard is finished: marked by this run, its tar and ledger rows being those of the mark.

    On a disk their checksums are compared; on an object store size and stored checksum, so that nothing is downloaded.
    """
    stats = read_stats(folder, shard)
    if stats is None or stats.fingerprint != fingerprint:
        return False
    part = ledger_part_path(folder, shard)
    if not agrees(folder / stats.file, stats):
        return False
    return not stats.ledger_sha256 or (part.is_file() and digest_file(part) == stats.ledger_sha256)


def agrees(tar: AnyPath, stats: ShardStats) -> bool:
    """Whether a tar is the one that its mark tells of; as far as can be told without a download on an object store."""
    return looks_like(tar, stats) and (is_remote(tar) or digest_file(tar) == stats.sha256)


def looks_like(tar: AnyPath, stats: ShardStats) -> bool:
    """Whether a tar has the size in its mark and, on an object store, the checksum that the store kept."""
    if not is_remote(tar):
        return tar.is_file() and tar.stat().st_size == stats.bytes
    try:
        size, stored = _stored(tar)
    except FileNotFoundError:
        return False
    return size == stats.bytes and (stored == stats.stored or not (stored and stats.stored))


def of_each(folder: AnyPath, function: Callable[[int], Answer], shards: Iterable[int]) -> list[Answer]:
    """Return what a function says of each shard in a folder; many at a time on an object store."""
    if not is_remote(folder):
        return [function(shard) for shard in shards]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(function, shards))
