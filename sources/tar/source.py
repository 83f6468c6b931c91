"""Images in tars, read in place: by offset, with nothing unpacked to the disk."""

import functools
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Self

from basics.errors import UserError
from basics.paths import AnyPath
from sources.base import ClassMap, ImageRecord, Source
from sources.classes import imagenet_map
from sources.content import FileState, state_of
from sources.ilsvrc import label_flat
from sources.layout import label_folders, strip_parents
from sources.names import check_printable, is_image
from sources.order import IMAGE_FOLDER, image_folder_order
from sources.storage import RandomFile, open_random
from sources.tar.scanning import MemberTable, Scanned, Tar, scan_each, scan_tars

__all__ = ["TarSource", "open_tars", "scan_tars"]

_OPEN_TARS = 64
"""Tars kept open at once: a data set may have more shards than a process may have open files."""


class TarSource(Source):
    """Images in one or more tars.

    Args:
        address: Address of the source, as the user gave it.
        tars: The tars.
        labels: Label of each record name.
        locations: Location of each record name's image.
        classes: What the labels mean.
    """

    def __init__(
        self, address: str, tars: Sequence[Tar], labels: Mapping[str, int], locations: MemberTable, classes: ClassMap
    ) -> None:
        self.address = address
        self.records = image_folder_order(labels)
        self.classes = classes
        self.order = IMAGE_FOLDER
        self._tars = tuple(tars)
        self._locations = locations
        self._open = functools.lru_cache(maxsize=_OPEN_TARS)(_open_tar)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files out: each process opens its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = functools.lru_cache(maxsize=_OPEN_TARS)(_open_tar)

    def part(self, records: Sequence[ImageRecord]) -> Self:
        """Return the same source reduced to some of its records, their locations and their tars."""
        part = super().part(records)
        part._locations, tars = self._locations.part(record.name for record in records)
        part._tars = tuple(self._tars[tar] for tar in tars)
        part._open = functools.lru_cache(maxsize=_OPEN_TARS)(_open_tar)
        return part

    def read(self, record: ImageRecord) -> bytes:
        """Return the encoded bytes of one image, exactly as stored.

        Raises:
            OSError: it cannot be read.
        """
        tar, offset, size = self._locations[record.name]
        content = self._open(self._tars[tar]).read(offset, size)
        if len(content) < size:
            raise OSError(f"{self._tars[tar].path} has become shorter since it was listed")
        return content

    def file_states(self, records: Sequence[ImageRecord]) -> list[FileState]:
        """Return the states of the tars that hold some of its records.

        Raises:
            OSError: a server does not say.
        """
        tars = {self._locations[record.name].tar for record in records}
        return [state_of(self._tars[tar].path) for tar in sorted(tars)]


def _open_tar(tar: Tar) -> RandomFile:
    return open_random(tar.path, gzipped=tar.gzipped)


def _list_images(tar: Scanned) -> tuple[list[str], "array[int]", "array[int]"]:
    """Return name, offset and size of each image of a tar."""
    names: list[str] = []
    offsets, sizes = array("q"), array("q")
    for chunk in tar.scan.chunks():
        rows = [row for row, name in enumerate(chunk.names) if is_image(name)]
        names += [chunk.names[row] for row in rows]
        offsets.extend(chunk.offsets[row] for row in rows)
        sizes.extend(chunk.sizes[row] for row in rows)
    return names, offsets, sizes


def _index(names: list[str], locations: MemberTable, tars: Sequence[Tar]) -> None:
    """Give the rows of `locations` their names.

    Raises:
        UserError: two tars hold the same name.
    """
    # Of a name that comes twice in one tar the last counts, as when it is unpacked.
    locations.rows = dict(zip(names, range(len(names)), strict=True))
    if len(locations.rows) == len(names):
        return
    first: dict[str, int] = {}
    for name, tar in zip(names, locations.tars, strict=True):
        if first.setdefault(name, tar) != tar:
            raise UserError(f"{tars[tar].path} holds {name}, as {tars[first[name]].path} does; take one away.")


def open_tars(address: str, tars: Sequence[AnyPath], split: str, labels: AnyPath | None) -> TarSource:
    """Make a source of tars of class folders, or of a flat ILSVRC tar with its label list.

    Args:
        address: Address of the source, as the user gave it.
        tars: The tars; together they hold one data set.
        split: The folder to take where a tar holds several splits.
        labels: The user's label list, for a flat tar.

    Raises:
        UserError: there is no image, a name comes twice, the labels are missing or wrong, or there is a label list for
            class folders.
    """
    names: list[str] = []
    locations, scanned = MemberTable(), []
    for number, (tar, (found, offsets, sizes)) in enumerate(scan_each(tars, _list_images)):
        scanned.append(tar)
        names += found
        locations.extend(number, offsets, sizes)
    if not names:
        raise UserError(f"{address} holds no image; give a tar of class folders or WebDataset shards.")
    _index(names, locations, scanned)
    check_printable(locations.rows, address)
    nested = [name for name in locations.rows if "/" in name]
    if not nested or labels is not None:
        return _open_flat(address, scanned, locations, labels)
    paths = strip_parents(nested, split, address)
    table, classes = label_folders([path for path in paths if "/" in path], address)
    rows = locations.rows
    locations.rows = {path: rows[paths[path]] for path in table}
    return TarSource(address, scanned, table, locations, classes)


def _open_flat(address: str, tars: Sequence[Tar], locations: MemberTable, labels: AnyPath | None) -> TarSource:
    if len({name.rpartition("/")[0] for name in locations.rows}) > 1:
        raise UserError(f"{address} has class folders, which say the labels; leave out the label list {labels}.")
    by_file = {name.rpartition("/")[2]: row for name, row in locations.rows.items()}
    table = label_flat(list(by_file), labels, address, [tars[0].path.parent])
    locations.rows = {name: by_file[name.rpartition("/")[2]] for name in table}
    return TarSource(address, tars, table, locations, imagenet_map())
