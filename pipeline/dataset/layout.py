"""Names of the files in a data-set folder, and the marks of finished shards."""

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
"""What the data set is; it shows whose the folder is."""
LEDGER = "perturbations.h5"
"""Rows of all shards, joined from their parts in `STATS`."""
TIMM_INFO = "_info.json"
WIDS_INDEX = "wids.json"
CARD = "README.md"
READER_FILES = (TIMM_INFO, WIDS_INDEX, CARD)
"""Files for readers other than plain webdataset, and for people."""
STATS = "stats"
"""Folder of the shards' marks and of their parts of the ledger."""
LOG = "log.jsonl"
"""When each shard ended, and why one failed; no part of the data set."""

_REQUESTS = 32
"""Concurrent requests to an object store."""
_STORED_CHECKSUMS = ("ETag", "md5Hash", "crc32c", "blob_id")
"""Names of the checksum of a file's content in S3, Google's store and Hugging Face's hub."""
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
Result = TypeVar("Result")
Folder = TypeVar("Folder", bound=AnyPath)


def shard_name(name: str, split: str, shard: int) -> str:
    """Return the file name of a shard."""
    return f"{name}-{split}-{shard:06d}.tar"


def ledger_part_path(folder: Folder, shard: int) -> Folder:
    """Return the path of one shard's rows of the ledger."""
    return cast("Folder", folder / STATS / f"{shard:06d}.h5")


def mark_path(folder: Folder, shard: int) -> Folder:
    """Return the path of a finished shard's mark."""
    return cast("Folder", folder / STATS / f"{shard:06d}.json")


@dataclass(frozen=True, kw_only=True)
class ShardMark:
    """The mark of a finished shard, written last. It has no time stamp, so that a second run writes the same bytes."""

    shard: int
    """Number of the shard."""
    fingerprint: str
    """Fingerprint of the run that wrote it."""
    file: str
    """Name of the tar file."""
    samples: int
    """Samples in the shard."""
    batches: int
    """Batches in the shard."""
    bytes: int
    """Size of the tar file."""
    sha256: str
    """SHA-256 of the tar file."""
    md5: str
    """MD5 of the tar file, which wids reads."""
    ledger_sha256: str
    """SHA-256 of the shard's part of the ledger; empty if there is none."""
    clean_right: int
    """Originals that the attacked classifier predicts correctly."""
    reconstructed_right: int
    """Reconstructions that it predicts correctly."""
    adversarial_right: int
    """Perturbed images that it predicts correctly; -1 if it made no prediction (a scale other than 1)."""
    stored: str = ""
    """Checksum of the tar's content that the object store keeps, such as an ETag; empty on a disk or if it has none."""

    def write(self, path: AnyPath) -> None:
        """Write the mark."""
        write_sealed(path, asdict(self))


def stored_checksum(path: AnyPath) -> str:
    """Return the checksum that an object store keeps of a file's content; empty on a disk.

    Raises:
        OSError: the file does not exist, or the store fails.
    """
    return _stored(path)[1] if is_remote(path) else ""


def _stored(path: UPath) -> tuple[int, str]:
    """Return size and checksum of a file as an object store reports them."""
    info = remote_info(path)
    checksum = next((info[name] for name in _STORED_CHECKSUMS if info.get(name)), "")
    return int(info["size"]), str(checksum).strip('"')


def read_mark(folder: AnyPath, shard: int) -> ShardMark | None:
    """Return the mark of a shard, or None if there is none or it is damaged.

    Raises:
        OSError: it cannot be read, which says nothing about the shard.
    """
    try:
        return ShardMark(**read_sealed(mark_path(folder, shard)))
    except (*_ABSENT, ValueError, TypeError):
        return None


def is_done(folder: AnyPath, shard: int, fingerprint: str) -> bool:
    """Whether a shard is finished: marked by this run, with the tar and the ledger rows that the mark records.

    Their checksums are compared. A tar on an object store is not downloaded for it if the store keeps a checksum.

    Raises:
        OSError: a file cannot be read.
    """
    mark = read_mark(folder, shard)
    if mark is None or mark.fingerprint != fingerprint:
        return False
    return matches(folder / mark.file, mark) and has_rows(folder, mark)


def has_rows(folder: AnyPath, mark: ShardMark) -> bool:
    """Whether a shard's part of the ledger is the one that its mark records, if it records one.

    Raises:
        OSError: a file cannot be read.
    """
    part = ledger_part_path(folder, mark.shard)
    return not mark.ledger_sha256 or (is_file(part) and digest_file(part) == mark.ledger_sha256)


def matches(tar: AnyPath, mark: ShardMark) -> bool:
    """Whether a tar is the one that its mark records; it is not downloaded from a store that keeps a checksum.

    Raises:
        OSError: a file cannot be read.
    """
    similar, proved = _compared(tar, mark)
    return similar and (proved or digest_file(tar) == mark.sha256)


def looks_like(tar: AnyPath, mark: ShardMark) -> bool:
    """Whether a tar has the size in its mark and, on an object store that keeps checksums, the recorded checksum.

    Raises:
        OSError: a file cannot be read.
    """
    return _compared(tar, mark)[0]


def _compared(tar: AnyPath, mark: ShardMark) -> tuple[bool, bool]:
    """Compare a tar with its mark without reading it; return whether they agree, and whether a checksum proves it."""
    try:
        size, stored = _stored(tar) if is_remote(tar) else (tar.stat().st_size, "")
    except _ABSENT:
        return False, False
    # A shard that was copied to S3 from a disk has no ETag in its mark, but its ETag usually is the MD5.
    proved = bool(stored) and stored in {mark.stored, mark.md5}
    return size == mark.bytes and (proved or not (stored and mark.stored)), proved


def map_shards(folder: AnyPath, function: Callable[[int], Result], shards: Iterable[int]) -> list[Result]:
    """Return the results of a function for each shard of a folder; on an object store many are computed at a time."""
    if not is_remote(folder):
        return [function(shard) for shard in shards]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(function, shards))
