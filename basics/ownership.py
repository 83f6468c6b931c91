"""Which run owns an output folder, so that no run writes over a user's files or over another run's.

A run leaves a record of its identity in its output folder: `manifest.json`, `settings.json`, `world.json`,
`report.json`. Four cases follow, and they are the same for data sets, run folders, results, reports and drawn worlds:

- no record, and no file that the run would write over: the folder is free;
- a record of the same identity: the run goes on, or writes the same again;
- a record of another identity: refused with the differences, unless the user chose to overwrite;
- files, but no record: refused, because they may be a user's.

While a run writes to a folder on a disk it holds a lock on it (`hold`). An object store has no locks: there the record
itself is the claim, because it is created only if there is none (see `pipeline.claim`).
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any

from basics.differences import differences
from basics.errors import UserError
from basics.files import require_writable_folder
from basics.paths import AnyPath, is_remote

ANOTHER_OUT = "give another --out"
OUT_OR_OVERWRITE = "give another --out, or --overwrite to start anew"
"""How a user mends a refusal: the ends of the messages."""


NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
"""Error numbers by which a file system says that it has no locks, as Lustre and NFS may be mounted."""


class Owner(Enum):
    """Whose an output folder is."""

    NOBODY = auto()
    """It has no record, and no file that a run would write over."""
    THIS_RUN = auto()
    """Its record has this run's identity."""
    ANOTHER_RUN = auto()
    """Its record has another identity."""
    UNKNOWN = auto()
    """It holds files that a run would write over, but no record of the run that left them."""


class FolderTakenError(UserError):
    """Another run is writing to the folder, or has made it its own meanwhile."""

    def __init__(self, folder: AnyPath, advice: str = ANOTHER_OUT) -> None:
        super().__init__(f"Another run is writing to {folder}; wait for it, or {advice}.")


def owner_of(*, recorded: Mapping[str, Any] | None, identity: Mapping[str, Any], files: str = "") -> Owner:
    """Return whose a folder is.

    Args:
        recorded: identity in the folder's record; None if there is no record.
        identity: this run's identity, of values that can be written as JSON.
        files: description of files that the run would write over; it counts where there is no record.
    """
    if recorded is None:
        return Owner.UNKNOWN if files else Owner.NOBODY
    return Owner.ANOTHER_RUN if _changed(recorded, identity) else Owner.THIS_RUN


def require_owner(  # noqa: PLR0913 (what is known of a folder, and the parts of the message)
    folder: AnyPath,
    *,
    recorded: Mapping[str, Any] | None,
    identity: Mapping[str, Any],
    files: str = "",
    overwrite: bool = False,
    other: str = "another run",
    advice: str = OUT_OR_OVERWRITE,
) -> None:
    """Refuse a folder that is neither free nor this run's.

    Args:
        folder: output folder.
        recorded: see `owner_of`.
        identity: see `owner_of`.
        files: see `owner_of`; stands in the message.
        overwrite: whether the user chose to remove another run's output. Files without a record are refused all the
            same: they need not be a run's.
        other: what the folder holds if its record has another identity.
        advice: how the user mends it in that case.

    Raises:
        UserError: the folder holds another run, or files without a record.
    """
    owner = owner_of(recorded=recorded, identity=identity, files=files)
    if owner is Owner.UNKNOWN:
        raise occupied_folder_error(folder, files)
    if owner is Owner.ANOTHER_RUN and not overwrite:
        changed = "; ".join(_changed(recorded or {}, identity))
        raise occupied_folder_error(folder, f"{other} ({changed})", advice)


def occupied_folder_error(folder: AnyPath, held: str, advice: str = ANOTHER_OUT) -> UserError:
    """Return the error that says what stands in the way in an output folder, and how to mend it."""
    return UserError(f"The folder {folder} holds {held}; {advice}.")


def _changed(recorded: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    # Through JSON, as the record went: tuples become lists there.
    return differences(recorded, json.loads(json.dumps(identity)))


@contextmanager
def lock_folder(folder: AnyPath, advice: str = ANOTHER_OUT) -> Iterator[None]:
    """Make a folder if need be, and keep other runs from writing to it meanwhile.

    The lock is the kernel's, which lets go of it however the run ends. On an object store nothing is locked.

    Raises:
        UserError: the folder cannot be written, or its file system has no locks.
        FolderTakenError: another run holds it.
    """
    require_writable_folder(folder, advice)
    if is_remote(folder):
        yield
        return
    with ExitStack() as stack:
        try:
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderTakenError(folder, advice) from error
        except OSError as error:
            raise _unlockable(folder, error, advice) from error
        yield


def _unlockable(folder: Path, error: OSError, advice: str) -> UserError:
    if error.errno in NO_LOCKS:
        return UserError(
            f"The file system of {folder} has no locks ({error.strerror}), so another run could write to the folder at "
            f"the same time; {advice} on another file system, such as a local disk."
        )
    return UserError(f"The folder {folder} cannot be locked ({error.strerror}); check its permissions, or {advice}.")
