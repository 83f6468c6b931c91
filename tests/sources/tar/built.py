"""Tars that are built by tarfile, for tests of the reader."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

LONG = "/".join(["folder" * 10] * 4) + "/é" + "x" * 120 + ".png"


def build(path: Path, fill: Callable[[tarfile.TarFile], None], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        fill(tar)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"content", kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.mtime = kind, len(content), 1.5  # a fraction makes pax write a header
    member.linkname = "target"
    tar.addfile(member, io.BytesIO(content))
