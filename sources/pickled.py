"""Tables in other people's pickles, read without running what a pickle may ask to be run.

A pickle is a small program that calls any function it names. Here the few names that such tables need stand for classes
and a function of this module, which only keep what they are given; every other name is refused.
"""

import io
import pickle
from collections.abc import Callable
from pickletools import genops
from typing import Any

_ENCODING = "bytes"
"""How strings of Python 2 are taken: bytes of arrays are among them."""


class PickleFormatError(Exception):
    """The bytes are no such table. The message, to be put after the file's name, says what is wrong."""


class PickledArray:
    """An array as a pickle describes it, its items not looked at."""

    shape: tuple[int, ...] = ()
    """Its sides."""
    content: bytes = b""
    """Its items, row by row."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, _, by_columns, self.content = state
        if by_columns or not isinstance(self.content, bytes):
            raise PickleFormatError("has an array that is not stored row by row")


class _ItemType:
    """The type of an array's items, of which nothing is kept: sizes tell whether they are bytes."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What Python 3 writes for bytes in an old protocol: a call that turns a text back into them."""
    return text.encode(encoding)


_STANDINS: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _ItemType,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _STANDINS:
            raise PickleFormatError(f"asks for {module}.{name} to be run, which is never done")
        return _STANDINS[module, name]


def _require_modest(content: bytes) -> None:
    """Refuse what a damaged byte makes of a pickle: places in the reader's memory that it has no room for."""
    places = (argument for code, argument, _ in genops(content) if "PUT" in code.name)
    if any(place is None or place > len(content) for place in places):
        raise PickleFormatError("is damaged or no pickled table")


def read_table(content: bytes) -> dict[str, Any]:
    """Return the pickled dictionary of texts to numbers, bytes, lists and arrays (as `PickledArray`).

    Raises:
        PickleFormatError: it is something else, or damaged, or asks for code to be run.
    """
    try:
        _require_modest(content)
        table = _Reader(io.BytesIO(content), encoding=_ENCODING).load()
        return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in table.items()}
    except PickleFormatError:
        raise
    except Exception as error:
        # Wrong bytes make the reader raise nearly anything: UnpicklingError, EOFError, IndexError, MemoryError.
        raise PickleFormatError("is damaged or no pickled table") from error
