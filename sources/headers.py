"""Where each file lies in a tar: the headers alone, so that members can be read at their offset.

Python's `tarfile` knows more kinds of member but takes some 25 microseconds and a kilobyte for each, too much
for the millions of members of a large set of shards. A test holds the two against each other.
"""

import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from sources.storage import RandomFile

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_FILE_KINDS = (b"0", b"\0", b"7")


class Member(NamedTuple):
    """One file in a tar."""

    name: str
    """Path without a leading `./`."""
    offset: int
    """Where its content starts, in bytes."""
    size: int
    """How long its content is, in bytes."""


class TarFormatError(Exception):
    """The bytes are no whole tar. The message says what is wrong, to be put after the file's name."""


def list_members(file: RandomFile) -> Iterator[Member]:
    """Yield the regular files of a tar in their order.

    Reads the v7, ustar, GNU and pax formats. Folders, links and devices are left out.

    Raises:
        TarFormatError: a header is damaged, or the file ends within a member.
        OSError: it cannot be read.
    """
    position = 0
    special: dict[str, str] = {}
    while (header := _header(file, position)) is not None:
        kind = header[156:157]
        size = int(special["size"]) if "size" in special else _number(header[124:136])
        start, position = position + _BLOCK, position + _BLOCK + -(-size // _BLOCK) * _BLOCK
        if start + size > file.size:
            raise TarFormatError("is cut off in the middle of a file")
        if kind in {b"x", b"L"}:
            special |= _extension(kind, file.read(start, size))
            continue
        if kind in _FILE_KINDS:
            name = special.get("path") or _name(header)
            if not name.endswith("/"):
                yield Member(_normal(name), start, size)
        # `g` and `K` stand between an extension and its file, too.
        if kind not in {b"g", b"K"}:
            special = {}


def _header(file: RandomFile, position: int) -> bytes | None:
    """Return the header at a position, or None at the end of the tar."""
    header = file.read(position, _BLOCK)
    if header == _ZEROS or (not header and position):
        return None
    if len(header) < _BLOCK:
        raise TarFormatError("is cut off in the middle of a header" if position else "is too short for a tar")
    checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    try:
        right = checksum == _number(header[148:156])
    except ValueError:
        right = False
    if not right:
        raise TarFormatError(f"has a damaged header at byte {position}" if position else "is not a tar")
    return header


def _number(field: bytes) -> int:
    """Read a number: octal digits, or base 256 with the top bit set where those would not suffice."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    return int(field.split(b"\0", 1)[0].strip() or b"0", 8)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # GNU tar keeps other things in the place of ustar's prefix.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _normal(name: str) -> str:
    if name.startswith(("./", "/")) or "//" in name or "/./" in name:
        return posixpath.normpath(name).lstrip("/")
    return name


def _extension(kind: bytes, content: bytes) -> dict[str, str]:
    """Return the path and size that the next header is too narrow for."""
    if kind == b"L":
        return {"path": _text(content)}
    found: dict[str, str] = {}
    while content[:1].isdigit():
        length = int(content.split(b" ", 1)[0])
        key, _, value = content[:length].split(b" ", 1)[1].rstrip(b"\n").partition(b"=")
        if key in {b"path", b"size"}:
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        content = content[length:]
    return found
