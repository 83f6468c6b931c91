"""A small real file system that can be full, and one without locks."""

import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own at `folder`; `resize` gives it its size. Skips where none can be mounted."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr!r}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk: Path, kibibytes: int) -> None:
    """Give a mounted disk another size."""
    subprocess.run(["mount", "-o", f"remount,size={kibibytes}k", str(disk)], check=True)


def without_locks(number: int) -> None:
    """Let no file of this process be locked any more, as on a file system without locks.

    The kernel then answers the system call `flock` with an error. Skips where it cannot be made to.

    Args:
        number: the error's number.
    """
    call = {"x86_64": 73, "aarch64": 32}.get(os.uname().machine)
    if call is None:
        pytest.skip("the number of the system call is not known here")
    # A program of the kernel's filter: load the call's number; if it is flock's, return the error; allow all others.
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | number), (0x06, 0, 0, 0x7FFF0000)]
    rules = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rows), ctypes.addressof(rules)))
    no_new_privileges, set_seccomp, seccomp_filter = 38, 22, 2
    libc = ctypes.CDLL(None)
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, seccomp_filter, program, 0, 0):
        pytest.skip("system calls cannot be filtered here")
