"""Where the members of several tars lie: each tar is scanned once, remote ones several at a time."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from threading import Lock
from typing import NamedTuple, TypeVar

from basics.errors import UserError
from basics.paths import AnyPath, is_remote
from sources.names import Media
from sources.storage import UNPACKED_LIMIT, RandomAccessFile, is_gzipped, open_random_access, too_large_to_unpack
from sources.tar.headers import TarFormatError, TarScan
from sources.tar.members import Member

_AT_ONCE = 16
"""Remote tars scanned at the same time, each with one window in memory."""
_UNPACKING = Lock()
"""Gzipped tars are unpacked one after the other: together they could take more memory than there is."""
_PROBED = 100
"""Members whose names show what a tar holds; the files of a sample stand together."""

Result = TypeVar("Result")


class Tar(NamedTuple):
    """A tar that images are read from."""

    path: AnyPath
    gzipped: bool | None = None
    """Whether it is gzipped; None to look when it is opened."""


class Location(NamedTuple):
    """Where the bytes of an image lie."""

    tar: int
    """Which of the source's tars, from 0."""
    offset: int
    """First byte."""
    size: int
    """Number of bytes."""


class MemberTable:
    """Location of each of many images by its name, in columns: a third of the memory that an object for each takes."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        """Row of each name."""
        self.tars, self.offsets, self.sizes = array("l"), array("q"), array("q")

    def __getitem__(self, name: str) -> Location:
        row = self.rows[name]
        return Location(self.tars[row], self.offsets[row], self.sizes[row])

    def add(self, name: str, tar: int, offset: int, size: int) -> None:
        """Add one image."""
        self.rows[name] = len(self.tars)
        self.tars.append(tar)
        self.offsets.append(offset)
        self.sizes.append(size)

    def extend(self, tar: int, offsets: "array[int]", sizes: "array[int]") -> None:
        """Add rows of one tar; `rows` gives them their names."""
        self.tars.extend(array("l", [tar]) * len(offsets))
        self.offsets.extend(offsets)
        self.sizes.extend(sizes)

    def part(self, names: Iterable[str]) -> tuple["MemberTable", list[int]]:
        """Return the locations of some names, and the numbers of their tars: the part numbers these anew, in order."""
        found = {name: self[name] for name in names}
        tars = sorted({location.tar for location in found.values()})
        number = {tar: new for new, tar in enumerate(tars)}
        part = MemberTable()
        for name, location in found.items():
            part.add(name, number[location.tar], location.offset, location.size)
        return part, tars


class Scanned(NamedTuple):
    """One open tar, ready to be scanned."""

    number: int
    """Which of the tars, from 0."""
    path: AnyPath
    scan: TarScan


def scan_each(
    tars: Sequence[AnyPath], function: Callable[[Scanned], Result], media: Media = "image"
) -> Iterator[tuple[Tar, Result]]:
    """Yield each tar with the result of a function of it, in order; remote tars are scanned several at a time.

    Args:
        tars: The tars.
        function: What is done with each.
        media: What they are searched for.

    Raises:
        UserError: one is unreadable or no tar, or gzipped ones are too large for the memory.
    """
    memory = 0
    for path, (size, result) in zip(tars, _map(tars, function, media), strict=True):
        memory += size
        if memory > UNPACKED_LIMIT:
            raise UserError(too_large_to_unpack(path))
        yield Tar(path, size > 0), result


def _map(tars: Sequence[AnyPath], function: Callable[[Scanned], Result], media: Media) -> Iterator[tuple[int, Result]]:
    numbered = list(enumerate(tars))
    if len(tars) == 1 or not any(map(is_remote, tars)):
        # From a disk, Python's own work takes most of the time, and threads do not speed that up.
        yield from (_scan(tar, function, media) for tar in numbered)
        return
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        yield from pool.map(lambda tar: _scan(tar, function, media), numbered)
    finally:
        # If one tar is faulty, do not wait for the others.
        pool.shutdown(cancel_futures=True)


def _scan(tar: tuple[int, AnyPath], function: Callable[[Scanned], Result], media: Media) -> tuple[int, Result]:
    """Return the bytes of memory that a tar takes while it is open, and the result of the function."""
    number, path = tar
    with _as_user_errors(path):
        file = open_random_access(path, gzipped=False)
        if not is_gzipped(file):
            return file.memory, function(Scanned(number, path, TarScan(file, media)))
        with _UNPACKING:
            file = open_random_access(path, gzipped=True)
            return file.memory, function(Scanned(number, path, TarScan(file, media)))


@contextmanager
def _as_user_errors(path: AnyPath) -> Iterator[None]:
    try:
        yield
    except TarFormatError as error:
        raise UserError(f"{path} {error}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); check it.") from error


def scan_tars(tars: Sequence[AnyPath]) -> Iterator[tuple[int, RandomAccessFile, Member]]:
    """Yield each member of each tar with the tar's number and open file, in order; hidden members are left out.

    Raises:
        UserError: one is unreadable or no tar, or gzipped ones are too large for the memory.
    """
    memory = 0
    for number, path in enumerate(tars):
        with _as_user_errors(path):
            file = open_random_access(path)
            memory += file.memory
            if memory > UNPACKED_LIMIT:
                raise UserError(too_large_to_unpack(path))
            for member in TarScan(file):
                yield number, file, member


def first_members(tars: Sequence[AnyPath]) -> list[str]:
    """Return the names of the first members of several tars, which show what the tars hold.

    Raises:
        UserError: the first cannot be read.
    """
    return [member.name for _, _, member in islice(scan_tars(tars[:1]), _PROBED)]
