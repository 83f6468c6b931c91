"""Existence and content of files, on a disk or a server. A fault is never reported as an absence."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upath import UPath

from basics.errors import UserError
from basics.paths import AnyPath, is_remote
from basics.remote import file_system, os_errors_only, remote_info


def unreadable(path: AnyPath, error: OSError) -> UserError:
    """Return the error for a file that is there but cannot be read, which says nothing about its content."""
    name, reason = error.filename or path, os.strerror(error.errno) if error.errno else error
    return UserError(f"The file {name} cannot be read ({reason}); check the path and its permissions.")


def cannot_be_read(error: Exception) -> bool:
    """Whether an exception tells that a file cannot be read, not that its content is not what it should be.

    Packages raise an OSError without a number, or with EINVAL (a position that cannot be), for damaged content.
    """
    return isinstance(error, OSError) and error.errno not in {None, 0, errno.EINVAL}


def exists(path: AnyPath) -> bool:
    """Return whether there is a file or folder.

    Raises:
        OSError: its file system does not respond, or denies access.
    """
    return _kind(path) is not None


def is_file(path: AnyPath) -> bool:
    """Return whether there is a file.

    Raises:
        OSError: its file system does not respond, or denies access.
    """
    return _kind(path) == "file"


def is_folder(path: AnyPath) -> bool:
    """Return whether there is a folder; on an object store that is a name with files below it.

    Raises:
        OSError: its file system does not respond, or denies access.
    """
    return _kind(path) == "directory"


def _kind(path: AnyPath) -> str | None:
    try:
        if is_remote(path):
            return str(remote_info(path)["type"])
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return "directory" if stat.S_ISDIR(mode) else "file"


def read_bytes(path: AnyPath) -> bytes:
    """Return a whole file, with one request where it is remote.

    Raises:
        OSError: it cannot be read.
    """
    if not is_remote(path):
        return path.read_bytes()
    try:
        # With a start, s3fs requests the content at once, without a request for the size before.
        return read_range(path, 0, None)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    # S3 refuses any range of an empty file.
    with os_errors_only(path):
        content: bytes = file_system(path).cat_file(path.path)
    return content


def read_range(path: UPath, start: int, end: int | None) -> bytes:
    """Return a remote file's bytes from `start` to `end` (None: all that follow), with one request.

    Raises:
        OSError: they cannot be read.
    """
    with os_errors_only(path):
        content: bytes = file_system(path).cat_file(path.path, start=start, end=end)
    return content


@contextmanager
def local_copy(path: AnyPath) -> Iterator[Path]:
    """Provide the local path of a file: its own on a disk, else that of a temporary copy.

    Raises:
        OSError: it cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with os_errors_only(path):
            file_system(path).get_file(path.path, str(copy))
        yield copy
