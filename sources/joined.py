"""Two sources as one, to train on both: the images of the second follow those of the first."""

from collections.abc import Sequence
from typing import Self

from basics.errors import UserError
from sources.base import ImageRecord, Source
from sources.content import FileState

_SECOND = "+/"
"""Prefix of the names of the second source's images, so that no name comes twice."""


class JoinedSource(Source):
    """The images of two sources with the same classes.

    Raises:
        UserError: their classes differ.
    """

    def __init__(self, first: Source, second: Source) -> None:
        if first.classes != second.classes:
            raise UserError(
                f"{first.address} and {second.address} have different classes "
                f"({first.classes.count} and {second.classes.count}); give a second source of the same classes."
            )
        self.first, self.second = first, second
        self.address = f"{first.address} + {second.address}"
        self.classes, self.order = first.classes, first.order
        self.records = [*first.records, *self.second_records]

    @property
    def second_records(self) -> list[ImageRecord]:
        """The second source's images under the names that they have in the joined source."""
        return [ImageRecord(_SECOND + record.name, record.label) for record in self.second.records]

    def part(self, records: Sequence[ImageRecord]) -> Self:
        """Return the same source reduced to some of its records; both sources are reduced as well."""
        part = super().part(records)
        own = [record for record in records if not record.name.startswith(_SECOND)]
        part.first = self.first.part(own)
        part.second = self.second.part([_in_second(record) for record in records if record.name.startswith(_SECOND)])
        return part

    def file_states(self, records: Sequence[ImageRecord]) -> list[FileState]:
        """Return the states of both sources' files that hold some of its records.

        Raises:
            OSError: a server does not say.
        """
        own = [record for record in records if not record.name.startswith(_SECOND)]
        others = [_in_second(record) for record in records if record.name.startswith(_SECOND)]
        return self.first.file_states(own) + self.second.file_states(others)

    def read(self, record: ImageRecord) -> bytes:
        """Return the encoded bytes of one image, from the source that it is in.

        Raises:
            OSError: it cannot be read.
        """
        if record.name.startswith(_SECOND):
            return self.second.read(_in_second(record))
        return self.first.read(record)


def _in_second(record: ImageRecord) -> ImageRecord:
    """Return a record under the name that it has in the second source."""
    return ImageRecord(record.name.removeprefix(_SECOND), record.label)
