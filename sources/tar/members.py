"""Files in a tar: a single one, and many in columns."""

import posixpath
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from sources.names import is_hidden

_UNCLEAN = re.compile(r"^[./]|//|/\.|/$", re.MULTILINE)
"""Matches if any of several names, one a line, is unclean, hidden, or that of a folder."""


class Member(NamedTuple):
    """One file in a tar."""

    name: str
    """Path without a leading `./`."""
    offset: int
    """Where its content starts, in bytes."""
    size: int
    """How long its content is, in bytes."""


class Columns(NamedTuple):
    """Several files of a tar, in columns: an object for each would take most of the time."""

    names: list[str]
    """Path of each file, as in `Member`."""
    offsets: list[int]
    """Offset of each content, in bytes."""
    sizes: list[int]
    """Length of each content, in bytes."""
    contents: list[bytes]
    """Content of the files that were to be read as well; empty for the others."""


class Chunk:
    """Columns that files are added to. Names stay bytes until those of the whole chunk are decoded at once."""

    def __init__(self) -> None:
        self.raw_names: list[bytes] = []
        self.special_names: dict[int, str] = {}
        """By row, names that are not wholly in the header."""
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self.contents: list[bytes] = []

    def adders(self) -> tuple[Callable[[Any], None], ...]:
        """Return the functions that add to each column: name, offset, size and content."""
        return self.raw_names.append, self.offsets.append, self.sizes.append, self.contents.append

    def columns(self) -> Columns:
        """Return the files under their cleaned names, without hidden ones."""
        raw_names = [name.partition(b"\0")[0] for name in self.raw_names]
        try:
            names = [name.decode() for name in raw_names]
        except UnicodeDecodeError:
            names = [name.decode("utf-8", "surrogateescape") for name in raw_names]
        for row, name in self.special_names.items():
            names[row] = name
        found = Columns(names, self.offsets, self.sizes, self.contents)
        # One search through all names is faster than a check of each.
        return found if _UNCLEAN.search("\n".join(names)) is None else _clean(found)


def _clean(found: Columns) -> Columns:
    names = [_normal(name) for name in found.names]
    kept = [row for row, name in enumerate(names) if not is_hidden(name) and not name.endswith("/")]
    return Columns(
        [names[row] for row in kept],
        [found.offsets[row] for row in kept],
        [found.sizes[row] for row in kept],
        [found.contents[row] for row in kept],
    )


def _normal(name: str) -> str:
    if name.startswith(("./", "/")) or "//" in name or "/./" in name:
        return posixpath.normpath(name).lstrip("/")
    return name
