"""The memory of a process: how much it took, and work that ends because there is no more."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from basics.errors import WorkError


def peak_memory() -> int:
    """Return the most memory that this process has had at any time, in bytes."""
    # In bytes on macOS, in KiB elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is full; on the CPU torch raises a plain RuntimeError for that."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Say in one sentence that memory is full, and what helps.

    Args:
        advice: what needs less memory.

    Raises:
        WorkError: memory is full.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition(". ")[0].partition("\n")[0] or "out of memory"
        raise WorkError(f"There is too little memory ({reason}); {advice}.") from error
