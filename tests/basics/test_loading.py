"""Loader processes: batches come as without them, faults become one sentence, and nothing waits for ever."""

import ctypes
import multiprocessing
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from basics import loading
from basics.compute import Compute
from basics.errors import UserError, WorkError
from basics.loading import fitting_loaders, loaded_batches
from tests.processes import in_a_process

CPU = Compute(device=torch.device("cpu"), precision="fp32")
GPU = Compute(device=torch.device("cuda"), precision="fp32")
MIB = 2**20


class SpecialError(WorkError):
    pass


class UnsendableError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.lock = threading.Lock()  # which no process can send to another


def broken() -> None:
    raise SpecialError("The image x: y.png is broken.")


def unreadable() -> None:
    raise PermissionError(13, "Permission denied", "/a/b.png")


def unsendable() -> None:
    raise UnsendableError("a reason")


def too_large() -> None:
    raise MemoryError


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def bus_error() -> None:
    os.kill(os.getpid(), signal.SIGBUS)


def leaving() -> None:
    os._exit(3)


def hoarding(left: int = 0) -> None:
    """Open as many files as the process may, but for a few."""
    opened = []
    try:
        while True:
            opened.append(os.dup(0))
    except OSError:
        for file in opened[len(opened) - left :]:
            os.close(file)


class Images(Dataset[tuple[int, Tensor]]):
    """Images of one value each; a fault happens at one of them."""

    def __init__(self, fault: Callable[[], None] = lambda: None, at: int = 5, side: int = 8) -> None:
        self.fault, self.at, self.side = fault, at, side

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        if index == self.at:
            self.fault()
        return index, torch.full((3, self.side, self.side), index, dtype=torch.uint8)


def load(images: Images, loaders: int) -> list[Any]:
    with loaded_batches(images, loaders, batch_size=2) as batches:
        return list(batches)


def sentence_of(fault: Callable[[], None], loaders: int = 2) -> str:
    try:
        load(Images(fault), loaders)
    except WorkError as error:
        return str(error)
    return "nothing went wrong"


@pytest.mark.slow
def test_loaders_give_the_batches_of_this_process() -> None:
    alone, shared = load(Images(), 0), load(Images(), 2)
    assert len(alone) == 6
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("loaders", [0, 1])
def test_an_exception_arrives_as_it_was_raised(loaders: int) -> None:
    with pytest.raises(SpecialError) as special:
        load(Images(broken), loaders)
    assert str(special.value) == "The image x: y.png is broken."
    with pytest.raises(PermissionError) as denied:
        load(Images(unreadable), loaders)
    assert (denied.value.errno, denied.value.filename) == (13, "/a/b.png")


@pytest.mark.slow
def test_an_exception_that_cannot_be_sent_is_described() -> None:
    with pytest.raises(RuntimeError, match=r"^UnsendableError: a reason") as caught:
        load(Images(unsendable), 1)
    assert not isinstance(caught.value, WorkError), "a fault of the program keeps its traceback"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (killed, "a loader process was killed, as the system does where memory is short; give fewer --loaders"),
        (bus_error, "the loaders have filled the shared memory /dev/shm; enlarge it (a container's --shm-size), give"),
        (leaving, "a loader process ended by itself"),
        (too_large, "a loader process has run out of memory; give fewer --loaders (--loaders 0 needs none), or"),
        (hoarding, "too many files are open; raise the limit (`ulimit -n`), or give fewer --loaders"),
    ],
)
def test_the_end_of_a_loader_is_one_sentence(fault: Callable[[], None], said: str) -> None:
    sentence = in_a_process(with_few_files, fault)
    assert sentence.startswith(f"Loading failed: {said}")
    assert "\n" not in sentence


def as_in_a_program() -> None:
    """Let loader processes be forked, as by a program; the test server's own processes would start others anew."""
    multiprocessing.set_start_method("fork", force=True)


def with_few_files(fault: Callable[[], None]) -> str:
    as_in_a_program()
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    return sentence_of(fault)


@pytest.mark.slow
@pytest.mark.parametrize("left", [1, 2, 4, 6])
def test_a_loader_that_cannot_send_its_batch_ends(left: int) -> None:
    """torch's own loaders wait for ever for a batch that was lost on the way."""
    sentence = in_a_process(with_few_files, partial(hoarding, left))
    assert sentence.startswith("Loading failed: too many files are open") or sentence == "nothing went wrong"


@pytest.mark.slow
def test_too_many_files_in_this_process_are_one_sentence() -> None:
    assert "too many files are open" in in_a_process(with_no_more_files)


def with_no_more_files() -> str:
    """Fill up the files of this process while loaders are at work."""
    as_in_a_program()
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    try:
        with loaded_batches(Images(), 2, batch_size=2) as batches:
            next(batches)
            hoarding()
            list(batches)
    except WorkError as error:
        return str(error)
    return "nothing went wrong"


@pytest.mark.slow
def test_processes_that_cannot_be_started_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(
        WorkError, match=r"^No loader process can be started \(Resource temporarily unavailable\); give"
    ):
        load(Images(), 2)


@pytest.mark.slow
def test_shared_memory_that_is_too_small_after_all_is_one_sentence() -> None:
    sentence = in_a_process(in_little_shared_memory)
    if sentence.startswith("skip"):
        pytest.skip(sentence)
    assert sentence.startswith("Loading failed: the loaders have filled the shared memory /dev/shm; enlarge it")


def in_little_shared_memory() -> str:
    as_in_a_program()
    libc = ctypes.CDLL(None)
    new_mounts = 0x00020000
    if libc.unshare(new_mounts):
        return "skip: this process may not have mounts of its own"
    small = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"]
    for command in (["mount", "--make-rprivate", "/"], small):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return "skip: no file system can be mounted here"
    try:
        load(Images(side=512), 2)
    except WorkError as error:
        return str(error)
    return "nothing went wrong"


def with_shared_memory(monkeypatch: pytest.MonkeyPatch, mebibytes: float) -> None:
    found = SimpleNamespace(f_bavail=int(mebibytes * 256), f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: found)


@pytest.mark.parametrize(("cores", "devices", "expected"), [(1, 1, 0), (2, 1, 1), (16, 1, 8), (16, 4, 2), (16, 16, 0)])
def test_half_of_the_cores_load_for_a_gpu_and_none_for_a_cpu(
    monkeypatch: pytest.MonkeyPatch, cores: int, devices: int, expected: int
) -> None:
    with_shared_memory(monkeypatch, 2**20)
    monkeypatch.setattr(loading, "available_cores", lambda: cores)
    assert fitting_loaders(None, GPU, batch_bytes=MIB, devices=devices) == expected
    assert fitting_loaders(None, CPU, batch_bytes=MIB, devices=devices) == 0


@pytest.mark.parametrize("compute", [CPU, GPU])
def test_an_explicit_number_is_taken(monkeypatch: pytest.MonkeyPatch, compute: Compute) -> None:
    with_shared_memory(monkeypatch, 2**20)
    assert [fitting_loaders(number, compute, batch_bytes=MIB) for number in (0, 1, 5)] == [0, 1, 5]


def test_loaders_that_shared_memory_has_no_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_shared_memory(monkeypatch, 64)
    assert fitting_loaders(3, CPU, batch_bytes=8 * MIB) == 3
    with pytest.raises(UserError) as refused:
        fitting_loaders(4, CPU, batch_bytes=8 * MIB)
    assert str(refused.value) == (
        "There is no room for 4 loaders: their batches take 80 MiB of shared memory, and /dev/shm has 64 MiB free; "
        "enlarge it (a container's --shm-size), or give fewer --loaders (--loaders 0 needs none)."
    )
    assert fitting_loaders(0, CPU, batch_bytes=100 * MIB) == 0


def test_by_default_as_many_load_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What worked with no loaders must not fail for want of room."""
    monkeypatch.setattr(loading, "available_cores", lambda: 16)
    with_shared_memory(monkeypatch, 64)
    assert fitting_loaders(None, GPU, batch_bytes=8 * MIB) == 3
    assert capsys.readouterr().err.startswith("3 loaders instead of 8: their batches take 144 MiB of shared memory")
    with_shared_memory(monkeypatch, 1)
    assert fitting_loaders(None, GPU, batch_bytes=8 * MIB) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [(64, 4096, "2 loaders, limit of files raised"), (64, 100, "and"), (300, 300, "2 loaders, limit of files kept")],
)
def test_the_limit_of_open_files_is_raised_or_the_loaders_refused(soft: int, hard: int, expected: str) -> None:
    said = in_a_process(loaders_within, soft, hard)
    assert expected in said
    if hard == 100:
        assert said.startswith("There is no room for 2 loaders: they take ")
        assert "more are allowed; raise the limit (`ulimit -n`), or give fewer --loaders (--loaders 0" in said


def loaders_within(soft: int, hard: int) -> str:
    as_in_a_program()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        count = fitting_loaders(2, CPU, batch_bytes=1)
    except UserError as error:
        return str(error)
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft
    assert len(load(Images(), count)) == 6
    return f"{count} loaders, limit of files {'kept' if kept else 'raised'}"
