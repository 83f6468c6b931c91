"""Files in tars: one alone, and many in columns."""

import posixpath
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from sources.names import is_hidden

_UNCLEAN = re.compile(r"^[./]|//|/\.|/$", re.MULTILINE)
"""In names, one a line, at least one that is not clean, hidden, or a folder's."""


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
    """As in `Member`, and so are the next two."""
    offsets: list[int]
    sizes: list[int]
    contents: list[bytes]
    """What is in those that were to be kept, nothing of the others."""


class Chunk:
    """Columns in the making: names are bytes as in the headers, for which decoding waits until there are many."""

    def __init__(self) -> None:
        self.raw_names: list[bytes] = []
        self.special_names: dict[int, str] = {}
        """Names that are not in the header alone, by row."""
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self.contents: list[bytes] = []

    def adders(self) -> tuple[Callable[[Any], None], ...]:
        """Return what adds to each column: name, offset, size and content."""
        return self.raw_names.append, self.offsets.append, self.sizes.append, self.contents.append

    def columns(self) -> Columns:
        """Return the files under their clean names, without hidden ones."""
        raw_names = [name.partition(b"\0")[0] for name in self.raw_names]
        try:
            names = [name.decode() for name in raw_names]
        except UnicodeDecodeError:
            names = [name.decode("utf-8", "surrogateescape") for name in raw_names]
        for row, name in self.special_names.items():
            names[row] = name
        found = Columns(names, self.offsets, self.sizes, self.contents)
        # One search through all names tells whether any has to be looked at.
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
