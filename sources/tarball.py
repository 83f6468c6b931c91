"""Images in tars, read in place: by offset, with nothing unpacked to the disk."""

import functools
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from basics.errors import UserError
from sources.base import ClassMap, ImageRecord, Source
from sources.classes import imagenet_map
from sources.headers import Member, TarFormatError, list_members
from sources.ilsvrc import label_flat
from sources.layout import label_folders, strip_parents
from sources.names import check_printable, is_hidden, is_image
from sources.order import IMAGE_FOLDER, image_folder_order
from sources.storage import UNPACKED_LIMIT, RandomFile, open_random, too_large_to_unpack

_OPEN_TARS = 64
"""Tars held open at once: a data set may have more shards than a process may have open files."""
_PROBED = 100
"""Members looked at to tell what tars hold; the files of a sample stand together."""


class Location(NamedTuple):
    """Where the bytes of an image lie."""

    tar: int
    """Which of the source's tars, from 0."""
    offset: int
    """First byte."""
    size: int
    """Number of bytes."""


class TarSource(Source):
    """Images in one or more tars.

    Args:
        address: Where it is, as the user gave it.
        tars: The tars.
        labels: Label of each record name.
        locations: Location of each record name.
        classes: What the labels mean.
    """

    def __init__(
        self,
        address: str,
        tars: Sequence[Path],
        labels: dict[str, int],
        locations: dict[str, Location],
        classes: ClassMap,
    ) -> None:
        self.address = address
        self.records = image_folder_order(ImageRecord(name, label) for name, label in labels.items())
        self.classes = classes
        self.order = IMAGE_FOLDER
        self._tars = tuple(tars)
        self._locations = locations
        self._open = functools.lru_cache(maxsize=_OPEN_TARS)(open_random)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind: each process opens its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = functools.lru_cache(maxsize=_OPEN_TARS)(open_random)

    def read(self, record: ImageRecord) -> bytes:
        """Return the encoded bytes of one image, exactly as stored.

        Raises:
            OSError: it cannot be read.
        """
        tar, offset, size = self._locations[record.name]
        content = self._open(self._tars[tar]).read(offset, size)
        if len(content) < size:
            raise OSError(f"{self._tars[tar]} has become shorter since it was listed")
        return content


def scan_tars(tars: Sequence[Path]) -> Iterator[tuple[int, RandomFile, Member]]:
    """Yield each member of each tar with the tar's number and open file, without hidden ones.

    Raises:
        UserError: one is unreadable or no tar, or gzipped ones are too large for the memory.
    """
    held = 0
    for number, path in enumerate(tars):
        try:
            file = open_random(path)
            held += file.held
            if held > UNPACKED_LIMIT:
                raise UserError(too_large_to_unpack(path))
            for member in list_members(file):
                if not is_hidden(member.name):
                    yield number, file, member
        except TarFormatError as error:
            raise UserError(f"{path} {error}.") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error}); check it.") from error


def first_members(tars: Sequence[Path]) -> list[str]:
    """Return the names of the first members of several tars, by which one tells what they hold.

    Raises:
        UserError: the first cannot be read.
    """
    return [member.name for _, _, member in islice(scan_tars(tars[:1]), _PROBED)]


def open_tars(address: str, tars: Sequence[Path], split: str, labels: Path | None) -> TarSource:
    """Make a source of tars of class folders, or of a flat ILSVRC tar with its label list.

    Args:
        address: Where it is, as the user gave it.
        tars: The tars; together they hold one data set.
        split: The folder to take where a tar holds several splits.
        labels: The user's label list, for a flat tar.

    Raises:
        UserError: there is no image, a name comes twice, or the labels are missing, wrong or not wanted.
    """
    locations: dict[str, Location] = {}
    for number, _, (name, offset, size) in scan_tars(tars):
        if is_image(name):
            # Within one tar the last of a name counts, as when it is unpacked.
            if name in locations and locations[name].tar != number:
                raise UserError(f"{tars[number]} holds {name}, as {tars[locations[name].tar]} does; take one away.")
            locations[name] = Location(number, offset, size)
    if not locations:
        raise UserError(f"{address} holds no image; give a tar of class folders or WebDataset shards.")
    check_printable(locations, address)
    nested = [name for name in locations if "/" in name]
    if not nested or labels is not None:
        return _open_flat(address, tars, locations, labels)
    paths = strip_parents(nested, split, address)
    table, classes = label_folders([path for path in paths if "/" in path], address)
    return TarSource(address, tars, table, {path: locations[paths[path]] for path in table}, classes)


def _open_flat(address: str, tars: Sequence[Path], locations: dict[str, Location], labels: Path | None) -> TarSource:
    if len({name.rpartition("/")[0] for name in locations}) > 1:
        raise UserError(f"{address} has class folders, which say the labels; leave out the label list {labels}.")
    by_file = {name.rpartition("/")[2]: location for name, location in locations.items()}
    table = label_flat(list(by_file), labels, address, [tars[0].parent])
    places = {name: by_file[name.rpartition("/")[2]] for name in table}
    return TarSource(address, tars, table, places, imagenet_map())
