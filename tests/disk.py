"""A small real file system that can be full."""

import os
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
