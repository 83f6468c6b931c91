"""Offsets and sizes of the files in a tar, from its headers alone, so that members can be read in place.

Python's `tarfile` knows more kinds of member but takes some 25 microseconds and a kilobyte for each, too much
for the millions of members of a large set of shards. A test compares the results of the two.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from sources.names import Media
from sources.storage import RandomAccessFile
from sources.tar.members import Chunk, Columns, Member, Unused, clean_name

_BLOCK = 512
_TAIL = 1 << 16
"""Bytes read at once where members are so large that most of a window would be their content."""
_ZEROS = bytes(_BLOCK)
_FIELDS = struct.Struct("100s24x12s20xc100x6s82x155s12x")
_IS_PLAIN = (b"0", b"ustar", False)
"""Kind, magic, and whether there is a prefix."""
_FEW, _MANY = 64, 4096
"""Headers read for one chunk: by a caller that may stop soon, and by one that reads all."""
_PLAIN = struct.Struct("100s24x11sc20xc100x5s83x?")
_ADVICE = "download or copy it again"
_CUT_OFF = f"is cut off in the middle of a file; {_ADVICE}"
_NO_TAR = "is not a tar; give one, uncompressed or gzipped"
_LINK_KINDS = frozenset((b"1", b"2"))
_EMPTY_KINDS = _LINK_KINDS | {b"3", b"4", b"5", b"6"}
"""Links, devices and folders: no content follows, whatever size their header claims."""
_FILE_KINDS = frozenset((b"0", b"\0", b"7"))
_FOLDER_KINDS = frozenset((b"5", b"D"))
"""Folders, the second with a list of files as content."""
_SPARSE_KIND = b"S"
_VOLUME_LABEL_KIND = b"V"
"""The label of the whole tar, which is no file."""
_EXTENSION_KINDS = frozenset((b"x", b"X", b"L", b"g", b"K"))
"""Headers that describe the next file or, of kind `g`, all that follow; those of kind `K` hold nothing needed here."""
_SPARSE_FIELDS = (b"GNU.sparse.", b"SCHILY.realsize")
"""Starts of pax fields of a file without its holes."""


class _Special(NamedTuple):
    """What extension headers say about the next file; the defaults mean that they say nothing."""

    path: str = ""
    size: int = -1
    sparse: bool = False
    """Whether its content lacks the holes of the file."""


_NOTHING = _Special()


class TarFormatError(Exception):
    """The bytes are no whole tar. The message follows the tar's name and says what is wrong and how to mend it."""


class TarScan:
    """The members of one tar, found by reading windows of it: one read may serve many headers.

    Args:
        file: The tar.
        media: What it is searched for.
    """

    def __init__(self, file: RandomAccessFile, media: Media = "image") -> None:
        self._file = file
        self._window = b""
        self._start = 0
        self.unused = Unused(media=media)
        """Members that are no visible files, so far as the tar has been read."""

    def content(self, offset: int, size: int) -> bytes:
        """Return bytes of the tar, without another read if they lie in the window that the scan has read.

        Raises:
            OSError: they cannot be read.
        """
        at = offset - self._start
        if at >= 0 and at + size <= len(self._window):
            return self._window[at : at + size]
        return self._file.read(offset, size)

    def __iter__(self) -> Iterator[Member]:
        """Yield the files of the tar one by one, as `chunks` does."""
        for chunk in self.chunks(count=_FEW):
            yield from map(Member, chunk.names, chunk.offsets, chunk.sizes)

    def chunks(self, keep: tuple[bytes, ...] = (), count: int = _MANY) -> Iterator[Columns]:
        """Yield the regular files of the tar in their order, in chunks; all other members are in `unused`.

        Reads the v7, ustar, GNU and pax formats.

        Args:
            keep: Files whose names end in one of these get their content read as well.
            count: How many headers are read for each chunk.

        Raises:
            TarFormatError: a header is damaged, the file ends within a member, an image or label is stored as something
                other than a plain file, or another tar follows.
            OSError: it cannot be read.
        """
        position = 0
        while position >= 0:
            chunk = Chunk()
            while position >= 0 and len(chunk.raw_names) < count:
                # The first header is always checked in full: only so can a file that is no tar be refused.
                position = self._plain_files(chunk, position, keep, count) if position else position
                position = self._other_file(chunk, position, keep)
            yield chunk.columns(self.unused)

    def _plain_files(self, chunk: Chunk, position: int, keep: tuple[bytes, ...], count: int) -> int:
        """Add files with the most common kind of header; return the position of the first other header.

        Those are ustar or GNU headers of regular files without a prefix. There are millions, so this is one loop
        without a call that is not needed.
        """
        add_name, add_offset, add_size, add_content = chunk.adders()
        unpack, end = _PLAIN.unpack_from, self._file.size
        while len(chunk.raw_names) < count:
            at = position - self._start
            if at + _BLOCK > len(self._window):
                at = self._move(position)
            try:
                raw_name, digits, closed, kind, magic, prefix = unpack(self._window, at)
                size = int(digits, 8)
            except (struct.error, ValueError):
                break
            offset = position + _BLOCK
            if (kind, magic, prefix) != _IS_PLAIN or closed not in b"\0 " or size < 0 or offset + size > end:
                break
            add_name(raw_name)
            add_offset(offset)
            add_size(size)
            add_content(self.content(offset, size) if keep and raw_name.rstrip(b"\0").endswith(keep) else b"")
            position = offset + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        return position

    def _other_file(self, chunk: Chunk, position: int, keep: tuple[bytes, ...]) -> int:
        """Add the file of one header of any kind, if it describes a file; return the next position, -1 at the end."""
        at = position - self._start
        if at + _BLOCK > len(self._window):
            at = self._move(position)
        member, position = self._any_kind(self._window[at : at + _BLOCK], position)
        if member is not None:
            if member.offset + member.size > self._file.size:
                raise TarFormatError(_CUT_OFF)
            kept = keep and member.name.encode(errors="surrogateescape").endswith(keep)
            content = self.content(member.offset, member.size) if kept else b""
            chunk.special_names[len(chunk.raw_names)] = member.name
            for add, value in zip(chunk.adders(), (b"", member.offset, member.size, content), strict=True):
                add(value)
        return position

    def _move(self, position: int) -> int:
        """Read the window that starts at a position; return 0, the index of the position in the window."""
        jumped = position - self._start - len(self._window)
        ahead = self._file.window
        # After content larger than a window, the next header is likely to be followed by as much content.
        self._window = self._file.read(position, min(ahead, _TAIL) if jumped > ahead else ahead)
        self._start = position
        return 0

    def _any_kind(self, header: bytes, position: int) -> tuple[Member | None, int]:
        """Read a header of any kind, with the one that it extends.

        Returns:
            The file, None if it is no regular one; where the next header is, -1 at the end of the tar.
        """
        special = _NOTHING
        while header != _ZEROS and (header or not position):
            raw_name, raw_size, kind, magic, prefix = _fields(header, position)
            extends = kind in _EXTENSION_KINDS
            size = _size(raw_size, kind, _NOTHING if extends else special)
            start = position + _BLOCK + (self._sparse_maps(header, position) if kind == _SPARSE_KIND else 0)
            position = start + -(-size // _BLOCK) * _BLOCK
            if not extends:
                name = special.path or _name(raw_name, prefix if magic == b"ustar\0" else b"")
                plain = kind in _FILE_KINDS and not special.sparse and not name.endswith("/")
                if not plain:
                    self._note(name, _SPARSE_KIND if special.sparse else kind)
                return (Member(name, start, size) if plain else None), position
            if start + size > self._file.size:
                raise TarFormatError(_CUT_OFF)
            special = _extend(special, kind, self.content(start, size))
            header = self.content(position, _BLOCK)
        if header:
            self._require_nothing_after(position)
        return None, -1

    def _sparse_maps(self, header: bytes, position: int) -> int:
        """Return the bytes of the blocks between the header of a sparse file and its content."""
        length, more = 0, header[482:483]
        while more.strip(b"\0"):
            length += _BLOCK
            more = self.content(position + length, _BLOCK)[504:505]
        return length

    def _note(self, name: str, kind: bytes) -> None:
        """Note a member that is no plain file; refuse one that seems to be an image or its label."""
        if kind in _FOLDER_KINDS or kind in _FILE_KINDS:
            name = name.rstrip("/") + "/"
        cleaned = clean_name(name)
        if not self.unused.admits(name, cleaned):
            return
        if self.unused.matters(cleaned):
            raise TarFormatError(f"holds {cleaned} as {_described(kind)}")
        if kind != _VOLUME_LABEL_KIND:
            self.unused.links.append(cleaned)

    def _require_nothing_after(self, position: int) -> None:
        """Refuse a tar that goes on after its end mark; zeros may follow, and what is no header."""
        at = position - self._start
        piece = self._window[at:] if at >= 0 else b""
        while piece or (piece := self._file.read(position, _TAIL)):
            for start in range(0, len(piece), _BLOCK) if piece.strip(b"\0") else ():
                if _is_header(piece[start : start + _BLOCK]):
                    raise TarFormatError(
                        f"goes on after its end mark, with another tar at byte {position + start}; give the tars that "
                        f"were put together one by one, or unpack it with `tar --ignore-zeros` and pack it again"
                    )
            position += len(piece)
            piece = b""


def _described(kind: bytes) -> str:
    """Return what an image that is no plain file is stored as, and how to pack it."""
    if kind in _LINK_KINDS:
        return "a link; pack it with `tar --dereference --hard-dereference`"
    if kind == _SPARSE_KIND:
        return "a sparse file, without its holes; pack it without --sparse"
    if kind in _EMPTY_KINDS:
        return "a device or pipe; pack it without that"
    return f"a member of the unusual kind {kind.decode('latin-1')!r}; pack it again with plain files only"


def _is_header(block: bytes) -> bool:
    return len(block) == _BLOCK and block[0] > 0 and _checksum(block) == _number(block[148:156])


def _checksum(header: bytes) -> int:
    return sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _fields(header: bytes, position: int) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Return name, size, kind, magic and prefix.

    The checksum is only compared where the magic does not prove a header: at the start, and in tars older
    than the magic. Adding up 512 bytes takes as long as all other work on a header.
    """
    if len(header) < _BLOCK:
        raise TarFormatError(f"is cut off in the middle of a header; {_ADVICE}" if position else _NO_TAR)
    fields: tuple[bytes, bytes, bytes, bytes, bytes] = _FIELDS.unpack(header)
    proven = position and fields[3].startswith(b"ustar")
    if not proven and _checksum(header) != _number(header[148:156]):
        raise TarFormatError(f"has a damaged header at byte {position}; {_ADVICE}" if position else _NO_TAR)
    return fields


def _size(raw_size: bytes, kind: bytes, special: _Special) -> int:
    """Return how many bytes of content follow a header."""
    if kind in _EMPTY_KINDS:
        return 0
    size = special.size if special.size >= 0 else _number(raw_size)
    if size < 0:
        raise TarFormatError(f"has a header without a size; {_ADVICE}")
    return size


def _number(field: bytes) -> int:
    """Read a number: octal digits, or base 256 with the top bit set where those would not suffice.

    Returns:
        The number; -1, which no checksum and no size is, if it is none.
    """
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        return -1


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _name(raw_name: bytes, raw_prefix: bytes) -> str:
    # GNU tar keeps other values in the bytes of ustar's prefix; for its headers the caller gives none.
    return f"{_text(raw_prefix)}/{_text(raw_name)}" if raw_prefix[:1].strip(b"\0") else _text(raw_name)


def _extend(special: _Special, kind: bytes, content: bytes) -> _Special:
    """Return what is known about the next file, updated from an extension header."""
    if kind == b"L":
        return special._replace(path=_text(content))
    if kind == b"K":
        return special
    try:
        found = _pax_fields(content)
        size = int(found.get(b"size", special.size))
    except ValueError as error:
        raise TarFormatError(f"has a damaged pax header; {_ADVICE}") from error
    sparse = any(key.startswith(_SPARSE_FIELDS) for key in found)
    if kind == b"g":
        if sparse or not found.keys().isdisjoint((b"path", b"size")):
            raise TarFormatError("has a pax header that gives one path or size to all its files; pack it again")
        return special
    path = found.get(b"GNU.sparse.name", found.get(b"path"))
    return _Special(special.path if path is None else _text(path), size, special.sparse or sparse)


def _pax_fields(content: bytes) -> dict[bytes, bytes]:
    """Parse `<length of the line> <key>=<value>` lines; raise a ValueError if they are malformed."""
    found = {}
    while content[:1].isdigit():
        digits, _, _ = content.partition(b" ")
        length = int(digits)
        if not len(digits) < length <= len(content):
            raise ValueError("a line is longer than the header")
        key, _, value = content[len(digits) + 1 : length - 1].partition(b"=")
        found[key] = value
        content = content[length:]
    return found
