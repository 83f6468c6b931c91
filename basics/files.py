"""Files that are whole or absent, and their checksums."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from basics.errors import UserError

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`; it takes the place of `path` only if the block ends well.

    The content is flushed to the disk before the rename, so that after a power cut the name holds either
    the old file or the whole new one.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        yield temporary
        commit(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def commit(temporary: Path, path: Path) -> None:
    """Flush a finished temporary file to the disk and give it its name."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON with sorted keys, so equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of `value` that checksums are taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum (hex) of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def require_writable_folder(path: Path) -> None:
    """Create the folder `path` if need be, and prove that files can be written in it.

    Raises:
        UserError: it is a file, or it cannot be created or written.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"The output {path} is a file; give a folder.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f"The output folder {path} cannot be written ({error.strerror}); give another with --out."
        ) from error
