"""The one place where files are opened: addresses, text files, reading at an offset.

Only local files so far. Other file systems come in here: an address is turned into something with
`RandomFile`'s `size` and `read`, and nothing else in this package touches a file by itself but the listing
of folders.
"""

import gzip
import os
import weakref
import zlib
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from basics.errors import UserError

UNPACKED_LIMIT = 2**30
"""Bytes that gzipped tars may take in memory: they cannot be read at an offset otherwise."""


class RandomFile(Protocol):
    """A file that can be read at any offset by several threads at once."""

    size: int
    """Bytes in the file."""
    held: int
    """Bytes of memory that it takes."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only where the file ends."""


class _LocalFile:
    held = 0

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Closed when the last reference goes, not sooner: another thread may still be reading.
        weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)


class _UnpackedFile:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = self.held = len(content)

    def read(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]


def open_random(path: Path) -> RandomFile:
    """Open a file for reading at any offset; a gzipped one is unpacked into memory.

    Raises:
        OSError: it cannot be read, or its gzip stream is damaged.
        UserError: it is gzipped and too large to be held in memory.
    """
    file = _LocalFile(path)
    if file.read(0, 2) != b"\x1f\x8b":
        return file
    try:
        with gzip.open(path) as stream:
            content = stream.read(UNPACKED_LIMIT + 1)
    except (EOFError, zlib.error) as error:
        raise OSError(f"damaged gzip stream: {error}") from error
    if len(content) > UNPACKED_LIMIT:
        raise UserError(too_large_to_unpack(path))
    return _UnpackedFile(content)


def too_large_to_unpack(path: Path) -> str:
    """Return the sentence that says why a gzipped file is refused."""
    return (
        f"{path} is gzipped and unpacks to over {UNPACKED_LIMIT >> 20} MiB, too much to be held in memory; "
        f"unpack it first, e.g. with `gunzip -k`."
    )


def local_path(address: str | os.PathLike[str]) -> Path:
    """Return the local path that an address names: a path, with `~` for the home folder, or a file:// URL.

    Raises:
        UserError: it is empty or lies on another file system.
    """
    text = os.fspath(address)
    if not text:
        raise UserError("The address is empty; give a path.")
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    if "://" in text:
        raise UserError(f"{text} is not a local path, and only those can be read so far; copy it here first.")
    return Path(text).expanduser()


def read_text(path: Path, what: str) -> str:
    """Return the text of a small UTF-8 file, without a byte-order mark.

    Args:
        path: The file.
        what: What the user knows it by, such as "label file".

    Raises:
        UserError: it is missing, unreadable or not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"The {what} {path} does not exist; check the path.") from error
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read ({error.strerror}); check its permissions.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The {what} {path} is not UTF-8 text; give a text file.") from error
