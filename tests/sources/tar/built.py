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


def add_sparse(tar: tarfile.TarFile, name: str, form: str) -> None:
    """Add a file of 3,072 bytes with a hole, as GNU tar's --sparse stores it in one of its formats."""
    member = tarfile.TarInfo(name)
    member.mtime = 0
    pieces = b"0123456789abcdef" * 32, b"fedcba9876543210" * 32
    if form == "gnu":
        member.type, member.size = tarfile.GNUTYPE_SPARSE, 1024
        header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        for at, number in ((386, 0), (398, 512), (410, 2560), (422, 512), (483, 3072)):
            header[at : at + 12] = b"%011o\0" % number
        header[482] = 1  # a block with further pieces follows; it is empty
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        _write(tar, bytes(header) + bytes(512) + b"".join(pieces))
        return
    fields = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "3072", "GNU.sparse.name": name}
    content = b"2\n0\n512\n2560\n512\n".ljust(512, b"\0") + b"".join(pieces)
    if form == "pax 0.1":
        fields = {"GNU.sparse.numblocks": "2", "GNU.sparse.map": "0,512,2560,512", "GNU.sparse.size": "3072"}
        fields["GNU.sparse.name"] = name
        content = b"".join(pieces)
    member.name, member.size, member.pax_headers = "GNUSparseFile.0/x", len(content), fields
    _write(tar, member.tobuf(tarfile.PAX_FORMAT) + content)


def _write(tar: tarfile.TarFile, whole: bytes) -> None:
    """Append blocks that tarfile does not write itself."""
    assert tar.fileobj is not None
    tar.fileobj.write(whole)
    tar.offset += len(whole)


def add(tar: tarfile.TarFile, name: str, content: bytes = b"content", kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.mtime = kind, len(content), 1.5  # a fraction makes pax write a header
    member.linkname = "target"
    tar.addfile(member, io.BytesIO(content))
