"""Settings of memory management that save time: the C library's allocator and Python's garbage collector."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGE = 2**30


@cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees, instead of handing it back to the kernel.

    An ascent allocates the same large tensors again in every step. By default glibc maps each one anew and the kernel
    clears its pages, which took more than a quarter of the processor time of a full-size batch on two CPU cores
    (docs/measurements.md). The price: freed memory is not available to other programs until the process ends.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _LARGE)


def give_back_freed_memory() -> None:
    """Hand memory back that was freed and kept, such as after weights were loaded, which takes them several times."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    """Return a function of the C library; None where there is no such one, as in others than glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause the search for reference cycles while very many small objects are made that are all kept.

    It would visit each of them many times in vain: a third of the time that listing a million images takes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
