"""Members of a tar: a single file, many in columns, and the names of those that are no visible file."""

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sources.names import Media, is_hidden, is_label, is_media

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


@dataclass
class Unused:
    """Names of the members of a tar that are no visible files."""

    folders: list[str] = field(default_factory=list)
    """Folders."""
    hidden: list[str] = field(default_factory=list)
    """Hidden members with the name of an image or label file; the others do not matter."""
    links: list[str] = field(default_factory=list)
    """Links, devices, sparse files and members of unknown kinds; none has the name of an image or label file."""
    media: Media = "image"
    """What the tar is searched for; where that is clips, they stand for the images above."""

    def matters(self, cleaned: str) -> bool:
        """Return whether a member has the name of an image (or clip) or a label file."""
        return is_media(cleaned, self.media) or is_label(cleaned)

    def admits(self, name: str, cleaned: str) -> bool:
        """Return whether a member is a visible file by its name, in the tar and cleaned; note it if it is not."""
        if not is_hidden(cleaned):
            if not name.endswith("/"):
                return True
            self.folders.append(cleaned)
        elif self.matters(cleaned):
            self.hidden.append(cleaned)
        return False


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

    def columns(self, unused: Unused) -> Columns:
        """Return the files under their cleaned names, without hidden ones, which are added to `unused`."""
        raw_names = [name.partition(b"\0")[0] for name in self.raw_names]
        try:
            names = [name.decode() for name in raw_names]
        except UnicodeDecodeError:
            names = [name.decode("utf-8", "surrogateescape") for name in raw_names]
        for row, name in self.special_names.items():
            names[row] = name
        found = Columns(names, self.offsets, self.sizes, self.contents)
        # One search through all names is faster than a check of each.
        return found if _UNCLEAN.search("\n".join(names)) is None else _clean(found, unused)


def _clean(found: Columns, unused: Unused) -> Columns:
    names = [clean_name(name) for name in found.names]
    kept = [row for row, name in enumerate(found.names) if unused.admits(name, names[row])]
    return Columns(
        [names[row] for row in kept],
        [found.offsets[row] for row in kept],
        [found.sizes[row] for row in kept],
        [found.contents[row] for row in kept],
    )


def clean_name(name: str) -> str:
    """Return the path at which a member is unpacked, relative to the folder that it is unpacked in."""
    if name.startswith(("./", "../", "/")) or "//" in name or "/./" in name or "/../" in name:
        # As tar does, which removes what would lead out of the folder.
        return posixpath.normpath("/" + name).lstrip("/")
    return name.rstrip("/")
