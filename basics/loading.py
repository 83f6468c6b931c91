"""Loader processes: batches made ready beside the network. Their faults become one sentence, and none waits for ever.

A loader process hands its tensors to this one in shared memory (`/dev/shm`), each with an open file. Where either runs
short, torch ends in a bus error, in a traceback of another process, or not at all. So both are compared with what is
needed before work starts, and what happens later is reported as a `WorkError`.
"""

import errno
import multiprocessing.connection
import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, NoReturn, cast

from torch.utils.data import DataLoader, Dataset, default_collate

from basics.compute import Compute, available_cores
from basics.errors import UserError, WorkError
from basics.progress import counted, say

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where torch puts the tensors of loader processes)
AHEAD = 2
"""Batches that each loader process makes ready before they are needed: torch's own number."""
_IN_USE = 2
"""Batches that are neither waiting nor being made: the one that is computed, and the one that comes next."""
_FILES_EACH = 4
"""Files that this process keeps open for each loader process, beside those of tensors."""
_FILES_SPARE = 100
"""Files that may be opened later: a source keeps up to 64 tars open, and torch needs some to report a shortage."""
_ENDING = 1.0
"""Seconds within which a loader process that has closed its connections ends."""
_FAULT = "DataLoader worker (pid"
_TOO_MANY_FILES = "Too many open files. Communication with the workers"
_FEWER = "give fewer --loaders (--loaders 0 needs none)"
_SHORTAGES = {
    errno.EMFILE: f"too many files are open; raise the limit (`ulimit -n`), or {_FEWER}.",
    errno.ENOSPC: f"the loaders have filled the shared memory {SHARED_MEMORY}; enlarge it (a container's --shm-size), "
    f"{_FEWER}, or a smaller --batch-size.",
    errno.ENOMEM: f"a loader process has run out of memory; {_FEWER}, or a smaller --batch-size.",
}
"""Error number -> what there is too little of. Loader processes that end for such a reason have it as exit code."""
_SHARED = "/torch_"
"""Beginning of the names that torch gives to files in shared memory, which its messages quote."""


def fitting_loaders(
    wanted: int | None, compute: Compute, *, batch_bytes: int, tensors: int = 2, devices: int = 1
) -> int:
    """Return how many loader processes a device gets, after a look at shared memory and open files.

    Args:
        wanted: what the user wants; None takes half of the cores where the network is on a GPU, and 0 where it computes
            on the same cores as the loaders would.
        compute: device of the network.
        batch_bytes: bytes of a device's batch, as loaders hand it over.
        tensors: tensors of a batch.
        devices: how many devices of this machine load at the same time.

    Raises:
        UserError: there is no room for the loaders that the user wants.
    """
    on_cores = compute.device.type == "cpu"
    count = (0 if on_cores else available_cores() // 2 // devices) if wanted is None else wanted
    fitting = next(
        number for number in range(count, -1, -1) if not (number and _shortage(number, batch_bytes, tensors, devices))
    )
    if fitting < count:
        shortage = _shortage(count, batch_bytes, tensors, devices)
        if wanted is not None:
            raise UserError(f"There is no room for {counted(count, 'loader')}: {shortage}, or {_FEWER}.")
        say(f"{counted(fitting, 'loader')} instead of {count}: {shortage}.")
    return fitting


def _shortage(loaders: int, batch_bytes: int, tensors: int, devices: int) -> str:
    """Return what there is too little of for so many loaders a device, and how to get more; empty if nothing."""
    needed = batch_bytes * (loaders * AHEAD + _IN_USE) * devices
    free = _free_shared_memory()
    if free is not None and needed > free:
        return (
            f"their batches take {_mebibytes(needed)} of shared memory, and {SHARED_MEMORY} has {_mebibytes(free)} "
            "free; enlarge it (a container's --shm-size)"
        )
    files = loaders * (_FILES_EACH + AHEAD * tensors) + _IN_USE * tensors + _FILES_SPARE
    allowed = _raise_file_limit(files)
    if allowed is not None:
        return f"they take {files} open files, and {allowed} more are allowed; raise the limit (`ulimit -n`)"
    return ""


def _free_shared_memory() -> int | None:
    """Return the free bytes of shared memory; None where tensors are not shared through a file system."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _raise_file_limit(needed: int) -> int | None:
    """Let this process open so many more files; return how many it may open if the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _open_files() + needed
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return None
    if hard != resource.RLIM_INFINITY and wanted > hard:
        return max(0, hard - wanted + needed)
    # The lower limit is a default, which each process may raise by itself.
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return None


def _open_files() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder))  # noqa: PTH208 (Path.iterdir opens no fewer)
        except OSError:
            continue
    return 0


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


@contextmanager
def loaded_batches(dataset: Dataset[Any], loaders: int, **batching: Any) -> Iterator[Iterator[Any]]:
    """Provide the batches of a data set, made by loader processes or by this one.

    What goes wrong in a loader process is raised here as it was raised there. torch notices the end of one at any
    moment, so the block is where the batches are used.

    Args:
        dataset: samples by their index.
        loaders: loader processes; 0 makes the batches in this one.
        batching: `batch_size`, `batch_sampler` and other arguments of torch's `DataLoader`.

    Raises:
        WorkError: a loader process was killed, or ran out of memory, shared memory or open files.
    """
    if loaders == 0:
        yield iter(DataLoader(dataset, **batching))
        return
    loader = DataLoader(
        _Guarded(dataset), num_workers=loaders, prefetch_factor=AHEAD, collate_fn=_collated, worker_init_fn=_begin,
        **batching,
    )  # fmt: skip
    try:
        batches = iter(loader)
    except OSError as error:
        raise WorkError(f"No loader process can be started ({error.strerror or error}); {_FEWER}.") from error
    try:
        yield _without_faults(batches)
    except RuntimeError as error:
        if not str(error).startswith((_FAULT, _TOO_MANY_FILES)):
            raise
        raise WorkError(_failure_message(str(error), _exit_codes(batches))) from error
    finally:
        # torch does so when the last reference is gone, which the traceback of an exception may keep for long. Of a
        # process that ends just now torch would speak again.
        with suppress(RuntimeError):
            cast("Any", batches)._shutdown_workers()


def _without_faults(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield batches; raise what a loader process sent in place of one."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (EOFError, OSError) as error:
            # The process that sent it has ended, or one of the two cannot open another file.
            raise WorkError(_failure_message(str(error), _exit_codes(batches), _shortage_of(error))) from error
        if isinstance(batch, _Fault):
            _raise(batch.error)
        yield batch


def _raise(error: Exception) -> NoReturn:
    sentence = _SHORTAGES.get(_shortage_of(error))
    if sentence is None:
        raise error
    raise WorkError(f"Loading failed: {sentence}") from error


def _shortage_of(error: BaseException) -> int:
    """Return the error number of a shortage of files, memory or shared memory; 0 for other exceptions."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError):
        number = errno.EMFILE if error.errno == errno.ENFILE else error.errno
        # Of a file that cannot be written the error names the path; that is no fault of the loaders.
        return number if number in {errno.EMFILE, errno.ENOMEM} else 0
    text = str(error)
    if isinstance(error, RuntimeError) and _SHARED in text:
        return errno.EMFILE if f"({errno.EMFILE})" in text else errno.ENOSPC
    return 0


def _failure_message(message: str, codes: list[int], shortage: int = 0) -> str:
    """Return what became of the loader processes.

    Args:
        message: of the exception by which it was noticed.
        codes: exit codes of the processes.
        shortage: error number of what this process has too little of, if that is known.
    """
    codes = [shortage, *codes]
    if message.startswith(_TOO_MANY_FILES):
        codes = [errno.EMFILE]
    elif "Bus error" in message or -signal.SIGBUS in codes:
        codes = [errno.ENOSPC]
    known = next((_SHORTAGES[code] for code in codes if code in _SHORTAGES), None)
    if known is not None:
        return f"Loading failed: {known}"
    if "Killed" in message or -signal.SIGKILL in codes:
        how = "was killed, as the system does where memory is short"
    else:
        ended = [code for code in codes if code]
        how = f"ended by itself ({', '.join(map(str, ended)) or message.strip() or 'no reason is known'})"
    return f"Loading failed: a loader process {how}; {_FEWER}, or a smaller --batch-size."


def _exit_codes(batches: Iterator[Any]) -> list[int]:
    """Return the exit codes of loader processes that have ended with a fault; torch's message may lack them."""
    processes = getattr(batches, "_workers", ())
    # One that is just ending has none yet.
    ended = multiprocessing.connection.wait([process.sentinel for process in processes], _ENDING)
    for process in processes:
        if process.sentinel in ended:
            process.join(_ENDING)
    return [process.exitcode for process in processes if process.exitcode]


class _Fault:
    """An exception on its way from a loader process: torch itself would send only a traceback as text."""

    def __init__(self, error: Exception) -> None:
        error.add_note(f"In a loader process:\n{''.join(traceback.format_exception(error))}")
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
        except Exception as fault:  # whatever the exception's class raises
            # Sent by a thread, which would drop it.
            error = RuntimeError(f"{type(error).__name__}: {error} (cannot be sent: {fault})")
        self.error = error


class _Guarded(Dataset[Any]):
    """A data set whose exceptions are values."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(cast("Any", self.dataset))

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            return _Fault(error)


def _collated(samples: list[Any]) -> Any:
    """Return samples as a batch in shared memory, or the first fault among them."""
    fault = next((sample for sample in samples if isinstance(sample, _Fault)), None)
    if fault is not None:
        return fault
    try:
        return default_collate(samples)
    except Exception as error:
        return _Fault(error)


def _begin(_loader: int) -> None:
    """Prepare a loader process: if a thread of it cannot send a batch, the process ends.

    By default such a thread prints a traceback and goes on, while the main process waits for that batch for ever.
    """
    Queue._on_queue_feeder_error = staticmethod(lambda error, _batch: _end(error))  # type: ignore[attr-defined]
    # Another thread hands files over. It also fails, with other errors, where the main process ends first.
    sys.excepthook = lambda _kind, error, _trace: _end(error) if _shortage_of(error) else None


def _end(error: BaseException) -> NoReturn:
    os._exit(_shortage_of(error) or 1)
