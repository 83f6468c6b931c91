"""The interface of a source of labelled images, in whatever form it is stored."""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from basics.files import canonical_json
from sources.content import FileState, state_checksum

_PIECE = 4096
"""Records that are added to the checksum at once."""


class ImageRecord(NamedTuple):
    """One labelled image of a source, without its pixels."""

    name: str
    """Path inside the source with "/" between its parts, e.g. `n01440764/ILSVRC2012_val_00000293.JPEG`."""
    label: int
    """Class index: the output that is highest when a classifier is correct."""


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """The classes of a source: which label means what."""

    names: tuple[str, ...]
    """Class name (wnid or folder) at each label."""
    imagenet: bool
    """Whether the labels are the 1,000 ImageNet-1k indices, also when only some classes are present."""

    @property
    def count(self) -> int:
        """How many outputs a classifier for these labels has."""
        return len(self.names)

    @property
    def named(self) -> bool:
        """Whether the names tell the classes apart from others. If not, each is only its own label, as in `0`, `1`."""
        if self.imagenet or not all(name.isascii() and name.isdecimal() for name in self.names):
            return True
        # Also filled up with zeros, as folders are so that their order as text is that of the numbers.
        return [int(name) for name in self.names] != list(range(self.count))


def numbered_classes(count: int) -> ClassMap:
    """Return the class map of labels of which nothing is known but their number."""
    return ClassMap(names=tuple(map(str, range(count))), imagenet=False)


class Source(ABC):
    """Labelled images in a fixed order.

    A source is picklable and may be read by several threads at once. Listing it reads no pixel.
    """

    address: str
    """Address of the source, as the user gave it."""
    records: Sequence[ImageRecord]
    """Every image, in the order in which batches are cut."""
    classes: ClassMap
    """What the labels mean."""
    order: str
    """How `records` is sorted: `ImageFolder`, or `file:` and the checksum of the user's order file."""
    is_split: bool = False
    """Whether it is one of the splits in which its data set is stored."""
    split: str = ""
    """Which of them, if that is known."""

    @abstractmethod
    def read(self, record: ImageRecord) -> bytes:
        """Return the encoded bytes of one image, exactly as stored.

        Raises:
            OSError: it cannot be read.
        """

    def part(self, records: Sequence[ImageRecord]) -> Self:
        """Return the same source reduced to some of its records: small when pickled, read as the whole is.

        Args:
            records: Some of `self.records`, in any order.
        """
        part = copy.copy(self)
        part.records = list(records)
        return part

    def file_states(self, records: Sequence[ImageRecord]) -> list[FileState]:  # noqa: ARG002 (for those with files)
        """Return the states of the files that hold some of its records, in a fixed order; empty if it has no files.

        Raises:
            OSError: a server does not say.
        """
        return []

    def record_states(self, records: Sequence[ImageRecord]) -> list[FileState]:
        """Return the state of the file that holds each of some of its records; empty if it has no files.

        Raises:
            OSError: a server does not say.
        """
        return [state for record in records for state in self.file_states([record])]

    def state_checksums(self, records: Sequence[ImageRecord], parts: int = 1) -> list[str]:
        """Return state checksums of the files that hold some of its records (see `sources.content`).

        Args:
            records: some of `self.records`.
            parts: how many checksums, at most; the files are dealt out to them in turn.

        Returns:
            The checksums; none if it has no files, or a server does not say what state they are in.
        """
        try:
            states = self.file_states(records)
        except OSError:
            # It is no reason to stop: whoever reads the files says what is wrong.
            return []
        return [state_checksum(states[start::parts]) for start in range(min(parts, len(states)))]

    def digest(self) -> str:
        """Return a checksum (hex) over the names and labels in order: a resumed run compares it.

        Pixels are left out on purpose: a broken file may be mended between two runs.
        """
        digest = hashlib.sha256()
        # The canonical JSON of one list, made piece by piece: whole, a million records take hundreds of megabytes.
        for start in range(0, max(len(self.records), 1), _PIECE):
            piece = canonical_json([list(record) for record in self.records[start : start + _PIECE]])
            digest.update((b"," if start else b"[") + piece[1:-1])
        digest.update(b"]")
        return digest.hexdigest()
