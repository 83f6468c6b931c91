"""Opens the files of sources, local or on any file system of fsspec, as text or for reading at an offset.

Image files and tars are opened here; small files that are read whole go through `basics.reading`, and folders are
listed by `listing`.
"""

import errno
import gzip
import io
import os
import stat
import weakref
import zlib
from functools import cached_property
from pathlib import Path
from typing import Protocol

from upath import UPath

from basics.errors import UserError
from basics.paths import AnyPath
from basics.reading import read_bytes, read_range
from basics.remote import remote_info

UNPACKED_LIMIT = 2**30
"""Bytes that gzipped tars may take in memory: they cannot be read at an offset otherwise."""

_LOCAL_WINDOW = 1 << 12
"""Bytes of a page: from a disk, one more read costs less than reading more."""
_REMOTE_WINDOW = 1 << 22
"""Bytes that a server sends in about the time that it takes to respond."""


class RandomAccessFile(Protocol):
    """A file that can be read at any offset by several threads at once."""

    @property
    def size(self) -> int:
        """Bytes in the file."""

    memory: int
    """Bytes of memory that it takes."""
    window: int
    """Bytes that a caller who goes on reading should read at once."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only where the file ends."""


class _LocalFile:
    memory = 0
    window = _LOCAL_WINDOW

    def __init__(self, path: Path) -> None:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "a pipe, socket or device, no file", str(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Closed with the last reference, not sooner: another thread may still be reading.
        weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)


class _UnpackedFile:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = self.memory = self.window = len(content)

    def read(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]


class _RemoteFile:
    memory = 0
    window = _REMOTE_WINDOW

    def __init__(self, path: UPath) -> None:
        self._path = path

    @cached_property
    def size(self) -> int:
        # Requested only when a tar is scanned: readers of its members know the offsets.
        return int(remote_info(self._path)["size"])

    def read(self, offset: int, size: int) -> bytes:
        if "size" in self.__dict__:
            # Servers refuse a range that starts beyond the end.
            size = min(size, self.size - offset)
        return read_range(self._path, offset, offset + size) if size > 0 else b""


def open_random_access(path: AnyPath, *, gzipped: bool | None = None) -> RandomAccessFile:
    """Open a file for reading at any offset; a gzipped one is unpacked into memory.

    Args:
        path: The file.
        gzipped: Whether it is gzipped; None to look at its first bytes.

    Raises:
        OSError: it cannot be read, or its gzip stream is damaged.
        UserError: it is gzipped and too large to be held in memory.
    """
    file: RandomAccessFile = _LocalFile(path) if isinstance(path, Path) else _RemoteFile(path)
    if gzipped is None:
        gzipped = is_gzipped(file)
    if not gzipped:
        return file
    try:
        packed = path if isinstance(path, Path) else io.BytesIO(read_bytes(path))
        with gzip.open(packed) as stream:
            content = stream.read(UNPACKED_LIMIT + 1)
    except (EOFError, zlib.error) as error:
        raise OSError(f"damaged gzip stream: {error}") from error
    if len(content) > UNPACKED_LIMIT:
        raise UserError(too_large_to_unpack(path))
    return _UnpackedFile(content)


def is_gzipped(file: RandomAccessFile) -> bool:
    """Return whether a file is gzipped, by its first bytes.

    Raises:
        OSError: it cannot be read.
    """
    return file.size > 1 and file.read(0, 2) == b"\x1f\x8b"


def too_large_to_unpack(path: AnyPath) -> str:
    """Return the message with which a gzipped file is refused."""
    return (
        f"{path} is gzipped and unpacks to over {UNPACKED_LIMIT >> 20} MiB, too much to be held in memory; "
        f"unpack it first, e.g. with `gunzip -k`."
    )


def read_text(path: AnyPath, what: str) -> str:
    """Return the text of a small UTF-8 file, without a byte-order mark.

    Args:
        path: The file.
        what: Name of the file in messages, such as "label file".

    Raises:
        UserError: it is missing, unreadable or not text.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"The {what} {path} does not exist; check the path.") from error
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read ({error.strerror}); check its permissions.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The {what} {path} is not UTF-8 text; give a text file.") from error
