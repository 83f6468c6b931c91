"""What lies where in several tars: each is scanned once, those on servers several at a time."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from threading import Lock
from typing import NamedTuple, TypeVar

from basics.errors import UserError
from basics.paths import AnyPath, is_remote
from sources.storage import UNPACKED_LIMIT, RandomFile, is_gzipped, open_random, too_large_to_unpack
from sources.tar.headers import TarFormatError, TarScan
from sources.tar.members import Member

_AT_ONCE = 16
"""Remote tars scanned at the same time, each with one window in memory."""
_UNPACKING = Lock()
"""Gzipped tars are unpacked one after the other: together they could take more memory than there is."""
_PROBED = 100
"""Members looked at to tell what tars hold; the files of a sample stand together."""

Found = TypeVar("Found")


class Tar(NamedTuple):
    """A tar that images are read from."""

    path: AnyPath
    gzipped: bool | None = None
    """Whether it is; None to look when it is opened."""


class Location(NamedTuple):
    """Where the bytes of an image lie."""

    tar: int
    """Which of the source's tars, from 0."""
    offset: int
    """First byte."""
    size: int
    """Number of bytes."""


class Places:
    """Where many images lie, by name: a table in columns, a third of what an object for each would take."""

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
        """Add rows of one tar, to which names are given by `rows`."""
        self.tars.extend(array("l", [tar]) * len(offsets))
        self.offsets.extend(offsets)
        self.sizes.extend(sizes)

    def part(self, names: Iterable[str]) -> tuple["Places", list[int]]:
        """Return the places of some names, and the tars that they lie in: the part numbers these anew, in order."""
        found = {name: self[name] for name in names}
        tars = sorted({place.tar for place in found.values()})
        number = {tar: new for new, tar in enumerate(tars)}
        part = Places()
        for name, place in found.items():
            part.add(name, number[place.tar], place.offset, place.size)
        return part, tars


class Scanned(NamedTuple):
    """One open tar, ready to be scanned."""

    number: int
    """Which of the tars, from 0."""
    path: AnyPath
    scan: TarScan


def scan_each(tars: Sequence[AnyPath], job: Callable[[Scanned], Found]) -> Iterator[tuple[Tar, Found]]:
    """Yield each tar with what a function makes of it, in order; remote tars are in work several at a time.

    Raises:
        UserError: one is unreadable or no tar, or gzipped ones are too large for the memory.
    """
    held = 0
    for path, (size, found) in zip(tars, _map(tars, job), strict=True):
        held += size
        if held > UNPACKED_LIMIT:
            raise UserError(too_large_to_unpack(path))
        yield Tar(path, size > 0), found


def _map(tars: Sequence[AnyPath], job: Callable[[Scanned], Found]) -> Iterator[tuple[int, Found]]:
    numbered = list(enumerate(tars))
    if len(tars) == 1 or not any(map(is_remote, tars)):
        # From a disk, Python's own work takes the most time, and threads would not share that.
        yield from (_scan(tar, job) for tar in numbered)
        return
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        yield from pool.map(lambda tar: _scan(tar, job), numbered)
    finally:
        # After a fault in one, the others are not waited for.
        pool.shutdown(cancel_futures=True)


def _scan(tar: tuple[int, AnyPath], job: Callable[[Scanned], Found]) -> tuple[int, Found]:
    """Return the memory that a tar takes while it is open, and what the function makes of it."""
    number, path = tar
    with _plain_words(path):
        file = open_random(path, gzipped=False)
        if not is_gzipped(file):
            return file.held, job(Scanned(number, path, TarScan(file)))
        with _UNPACKING:
            file = open_random(path, gzipped=True)
            return file.held, job(Scanned(number, path, TarScan(file)))


@contextmanager
def _plain_words(path: AnyPath) -> Iterator[None]:
    try:
        yield
    except TarFormatError as error:
        raise UserError(f"{path} {error}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); check it.") from error


def scan_tars(tars: Sequence[AnyPath]) -> Iterator[tuple[int, RandomFile, Member]]:
    """Yield each member of each tar with the tar's number and open file, without hidden ones, as they are found.

    Raises:
        UserError: one is unreadable or no tar, or gzipped ones are too large for the memory.
    """
    held = 0
    for number, path in enumerate(tars):
        with _plain_words(path):
            file = open_random(path)
            held += file.held
            if held > UNPACKED_LIMIT:
                raise UserError(too_large_to_unpack(path))
            for member in TarScan(file):
                yield number, file, member


def first_members(tars: Sequence[AnyPath]) -> list[str]:
    """Return the names of the first members of several tars, by which one tells what they hold.

    Raises:
        UserError: the first cannot be read.
    """
    return [member.name for _, _, member in islice(scan_tars(tars[:1]), _PROBED)]
