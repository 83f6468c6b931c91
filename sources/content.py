"""State checksums: whether files are those of before, by their sizes and times, without reading them.

A state checksum is one over the sizes and modification times of files in order. The times are taken in whole seconds,
since many archives, copies and file systems keep no more of them exactly. Names and paths are left out, so that files
may be moved. A server's checksum or version of a file stands for its time; the first and last bytes of a file do where
its time is that of a reproducible archive (`tar --mtime=@0`), which all files share.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from upath import UPath

from basics.paths import AnyPath
from basics.remote import file_system, os_errors_only, remote_info

_SECOND = 10**9
_NO_TIME = 315_619_200
"""Seconds of 1980-01-02: earlier times are those that archives and images of containers give to every file."""
_END = 4096
"""Bytes at each end of such a file that are read in place of its time."""
_AT_ONCE = 16
"""Threads that request the state of files: on network file systems each request takes a while."""
_BATCH = 1000
_TAGS = ("md5Hash", "ETag", "etag", "blob_id", "mtime", "LastModified", "last_modified", "updated", "created")
"""What file systems of fsspec say of a file's content, best first."""


class FileState(NamedTuple):
    """What is known of a file without reading it."""

    size: int
    """Bytes; -1 if the file is not there."""
    time: int = 0
    """Time of its last change in nanoseconds; 0 on a server."""
    tag: str = ""
    """A server's checksum or version of it, or a checksum over the ends of a file without a time of its own."""


ABSENT = FileState(-1)


def local_states(paths: Sequence[str]) -> list[FileState]:
    """Return the states of many local files, in order."""
    batches = (paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(chain.from_iterable(pool.map(lambda batch: [_local_state(path) for path in batch], batches)))


def _local_state(path: str) -> FileState:
    try:
        found = os.stat(path)  # noqa: PTH116 (a Path for each takes as long again)
    except OSError:
        # Whoever reads it says what is wrong.
        return ABSENT
    return FileState(found.st_size, found.st_mtime_ns, _ends(path) if found.st_mtime < _NO_TIME else "")


def _ends(path: str) -> str:
    """Return a checksum over the first and last bytes of a file, for one whose time says nothing."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (a Path for each takes as long again)
            head = file.read(_END)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
            return hashlib.sha256(head + file.read()).hexdigest()
    except OSError:
        return ""


def state_of(path: AnyPath) -> FileState:
    """Return the state of one file, on a disk or a server.

    Raises:
        OSError: the server does not say.
    """
    return _local_state(str(path)) if isinstance(path, Path) else _remote_state(remote_info(path))


def remote_states(root: UPath, names: Iterable[str]) -> list[FileState]:
    """Return the states of files below a folder on a server, which is listed with one request.

    Raises:
        OSError: it cannot be listed.
    """
    with os_errors_only(root):
        system = file_system(root)
        found = system.find(root.path, detail=True)
    prefix = system._strip_protocol(root.path).rstrip("/")
    every = (found.get(f"{prefix}/{name}") for name in names)
    return [ABSENT if about is None else _remote_state(about) for about in every]


def _remote_state(about: Mapping[str, Any]) -> FileState:
    tag = next((about[name] for name in _TAGS if about.get(name)), "")
    return FileState(int(about.get("size") or 0), tag=str(tag).strip('"'))


def state_checksum(states: Iterable[FileState]) -> str:
    """Return the state checksum (32 hex digits) of files in order."""
    digest = hashlib.sha256()
    for state in states:
        digest.update(f"{state.size}|{state.time // _SECOND}|{state.tag}\n".encode())
    return digest.hexdigest()[:32]
