"""Two sources as one, to train on both: the images of the second stand behind those of the first."""

from basics.errors import UserError
from sources.base import ImageRecord, Source

_SECOND = "+/"
"""Before the names of the second source's images, so that no name comes twice."""


class JoinedSource(Source):
    """The images of two sources with the same classes."""

    def __init__(self, first: Source, second: Source) -> None:
        if first.classes != second.classes:
            raise UserError(
                f"{first.address} and {second.address} number other classes "
                f"({first.classes.count} and {second.classes.count}); only data sets of the same classes can be mixed."
            )
        self.first, self.second = first, second
        self.address = f"{first.address} + {second.address}"
        self.classes, self.order = first.classes, first.order
        self.records = [*first.records, *self.second_records]

    @property
    def second_records(self) -> list[ImageRecord]:
        """The second source's images under the names that they have here."""
        return [ImageRecord(_SECOND + record.name, record.label) for record in self.second.records]

    def read(self, record: ImageRecord) -> bytes:
        """Return the encoded bytes of one image, from the source that it is in."""
        if record.name.startswith(_SECOND):
            return self.second.read(ImageRecord(record.name.removeprefix(_SECOND), record.label))
        return self.first.read(record)
