"""Reads tables from untrusted pickles without running code that they name.

A pickle is a small program that calls any function it names. The few names that such tables need are mapped to classes
and a function of this module, which only store their arguments; every other name is refused.
"""

import io
import pickle
from collections.abc import Callable
from pickletools import genops
from typing import Any

_ENCODING = "bytes"
"""Strings of Python 2 are read as bytes, because the items of arrays are stored as such strings."""


class PickleFormatError(Exception):
    """The bytes are no such table. The message follows the file's name and says what is wrong."""


class PickledArray:
    """An array as a pickle describes it, its items not interpreted."""

    shape: tuple[int, ...] = ()
    """Length of each axis."""
    content: bytes = b""
    """Bytes of the items, row by row."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, _, by_columns, self.content = state
        if by_columns or not isinstance(self.content, bytes):
            raise PickleFormatError("has an array that is not stored row by row")


class _ItemType:
    """Stands for the type of an array's items, which is not kept: sizes show whether items are bytes."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Return the bytes of a text. In old protocols, Python 3 writes bytes as a text and a call of this function."""
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


def _require_small_memo(content: bytes) -> None:
    """Refuse a memo index beyond the length of the pickle: damaged bytes make some that would fill the memory."""
    indices = (argument for code, argument, _ in genops(content) if "PUT" in code.name)
    if any(index is None or index > len(content) for index in indices):
        raise PickleFormatError("is damaged or no pickled table")


def read_table(content: bytes) -> dict[str, Any]:
    """Return the pickled dictionary of texts to numbers, bytes, lists and arrays (as `PickledArray`).

    Raises:
        PickleFormatError: it is something else, or damaged, or names other functions.
    """
    try:
        _require_small_memo(content)
        table = _Reader(io.BytesIO(content), encoding=_ENCODING).load()
        return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in table.items()}
    except PickleFormatError:
        raise
    except Exception as error:
        # Wrong bytes make the reader raise nearly anything: UnpicklingError, EOFError, IndexError, MemoryError.
        raise PickleFormatError("is damaged or no pickled table") from error
