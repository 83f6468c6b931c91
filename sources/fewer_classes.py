"""Images of ImageNet-1k of which only some classes occur, under labels that count those classes alone."""

from collections.abc import Sequence
from typing import Self

from basics.errors import UserError
from sources.base import ClassMap, ImageRecord, Source
from sources.content import FileState


class FewerClasses(Source):
    """The images of a source under new labels: the positions of their classes in a shorter list of names.

    Args:
        inner: the whole source.
        names: names of the classes that stay, in the order of their labels.

    Raises:
        UserError: images of another class occur.
    """

    def __init__(self, inner: Source, names: Sequence[str]) -> None:
        self.inner = inner
        self.address, self.order = inner.address, inner.order
        self.is_split, self.split = inner.is_split, inner.split
        self.classes = ClassMap(names=tuple(names), imagenet=False)
        inner_label = {name: label for label, name in enumerate(inner.classes.names)}
        own_label = {inner_label[name]: own for own, name in enumerate(names) if name in inner_label}
        if not own_label:
            raise UserError(
                f"{inner.address} has none of the {len(names)} classes (such as {names[0]}), but classes called "
                f"{', '.join(inner.classes.names[:3])}; give images of these classes."
            )
        self._inner_label = {own: label for label, own in own_label.items()}
        other = next((record for record in inner.records if record.label not in own_label), None)
        if other is not None:
            raise UserError(
                f"{inner.address} holds images of the class {inner.classes.names[other.label]} (such as {other.name}), "
                f"which is none of the {len(names)} classes; leave them out."
            )
        self.records = [ImageRecord(record.name, own_label[record.label]) for record in inner.records]

    def part(self, records: Sequence[ImageRecord]) -> Self:
        """Return the same source reduced to some of its records; the whole source is reduced as well."""
        part = super().part(records)
        part.inner = self.inner.part(self._inside(records))
        return part

    def file_states(self, records: Sequence[ImageRecord]) -> list[FileState]:
        """Return the states of the files that hold some of its records.

        Raises:
            OSError: a server does not say.
        """
        return self.inner.file_states(self._inside(records))

    def read(self, record: ImageRecord) -> bytes:
        """Return the encoded bytes of one image.

        Raises:
            OSError: it cannot be read.
        """
        return self.inner.read(*self._inside([record]))

    def _inside(self, records: Sequence[ImageRecord]) -> list[ImageRecord]:
        return [ImageRecord(record.name, self._inner_label[record.label]) for record in records]


def occurring(source: Source) -> list[str]:
    """Return the names of the classes that occur in a source, in the order of their labels."""
    return [source.classes.names[label] for label in sorted({record.label for record in source.records})]
