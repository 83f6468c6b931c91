"""What lies where in a data-set folder, and when a shard counts as done."""

from dataclasses import asdict, dataclass
from pathlib import Path

from basics.files import digest_file, read_sealed, write_sealed

MANIFEST = "manifest.json"
LEDGER = "perturbations.h5"
TIMM_INFO = "_info.json"
WIDS_INDEX = "wids.json"
CARD = "README.md"
STATS = "stats"
LOG = "log.jsonl"


def shard_name(name: str, split: str, shard: int) -> str:
    """Return the file name of a shard."""
    return f"{name}-{split}-{shard:06d}.tar"


def ledger_part_path(folder: Path, shard: int) -> Path:
    """Return where one shard's rows of the ledger are."""
    return folder / STATS / f"{shard:06d}.h5"


def stats_path(folder: Path, shard: int) -> Path:
    """Return where the mark of a finished shard is."""
    return folder / STATS / f"{shard:06d}.json"


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
    """... perturbed images."""

    def write(self, folder: Path) -> None:
        """Write the mark."""
        write_sealed(stats_path(folder, self.shard), asdict(self))


def read_stats(folder: Path, shard: int) -> ShardStats | None:
    """Return the mark of a shard, or None if there is no readable one."""
    try:
        return ShardStats(**read_sealed(stats_path(folder, shard)))
    except (OSError, ValueError, TypeError):
        return None


def is_done(folder: Path, shard: int, fingerprint: str) -> bool:
    """Whether a shard is finished: marked by this run, its tar and ledger rows with the checksums in the mark."""
    stats = read_stats(folder, shard)
    if stats is None or stats.fingerprint != fingerprint:
        return False
    tar, part = folder / stats.file, ledger_part_path(folder, shard)
    if not tar.is_file() or tar.stat().st_size != stats.bytes or digest_file(tar) != stats.sha256:
        return False
    return not stats.ledger_sha256 or (part.is_file() and digest_file(part) == stats.ledger_sha256)
