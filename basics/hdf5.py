"""Opens HDF5 files to be read, beside other programs that may have them open, and on file systems without locks."""

import time
from pathlib import Path

import h5py

from basics.errors import UserError
from basics.ownership import NO_LOCKS
from basics.progress import say
from basics.reading import cannot_be_read, unreadable

_PAUSE = 1.0
_ADVICE = "restore it, move it away to make its results again, or give another --out"


def open_hdf5(path: Path, timeout: float = 0.0, advice: str = _ADVICE, *, locking: bool = True) -> h5py.File:
    """Open a file to be read.

    Args:
        path: the file.
        timeout: seconds to wait, with a notice, for another program that has it open for writing.
        advice: what a user does about a damaged file, for the message.
        locking: whether nobody may write to the file meanwhile; False for one whose structure never changes.

    Raises:
        UserError: another program has it open for writing, it cannot be read, or it is no HDF5 or a damaged one.
    """
    end, waited = time.monotonic() + timeout, False
    while True:
        try:
            return _open(path) if locking else h5py.File(path, "r", locking=False)
        except BlockingIOError as error:
            said = f"The file {path} is open for writing in another program, such as a notebook"
            if time.monotonic() >= end:
                raise UserError(f"{said}; close it there, and give the command again.") from error
        except OSError as error:
            if cannot_be_read(error):
                raise unreadable(path, error) from error
            raise damaged_hdf5(path, error, advice) from error
        if not waited:
            say(f"{said}; waiting until it is closed there.")
            waited = True
        time.sleep(_PAUSE)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    # Our own files are only ever replaced whole, so that a reader needs no lock.
    return h5py.File(path, "r", locking=False)


def damaged_hdf5(path: Path, error: Exception, advice: str = _ADVICE) -> UserError:
    """Return the error for a file whose content is not what it should be."""
    return UserError(f"The file {path} is damaged or of another program ({error}); {advice}.")
