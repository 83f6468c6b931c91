"""HDF5 files are read beside other programs and without locks; what is wrong with one is said as it is."""

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest

from basics import hdf5
from basics.errors import UserError
from basics.hdf5 import open_hdf5
from tests.disk import without_locks
from tests.processes import in_a_process

NOTEBOOK = """
import sys, h5py
with h5py.File(sys.argv[1], "r+"):
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["one"] = 1
    return tmp_path / "x.h5"


@contextmanager
def held_open(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another program that has a file open for writing, until it reads a line."""
    words = [sys.executable, "-c", NOTEBOOK, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.stdin.close()


@pytest.mark.slow
def test_a_file_that_a_notebook_has_open_is_not_called_damaged(path: Path) -> None:
    with held_open(path), pytest.raises(UserError) as refused:
        open_hdf5(path)
    assert str(refused.value) == (
        f"The file {path} is open for writing in another program, such as a notebook; close it there, and give the "
        "command again."
    )
    with open_hdf5(path) as file:
        assert file["one"][()] == 1


@pytest.mark.slow
def test_where_work_would_be_lost_it_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hdf5, "_PAUSE", 0.05)
    with held_open(path) as process:
        assert process.stdin is not None
        closing = threading.Timer(0.3, process.stdin.close)
        closing.start()
        with open_hdf5(path, timeout=60) as file:
            assert file["one"][()] == 1
        closing.join()
    assert capsys.readouterr().err.count("such as a notebook; waiting until it is closed there.") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_is_read_where_nothing_can_be_locked(path: Path, number: int) -> None:
    assert in_a_process(read_without_locks, path, number) == 1


def read_without_locks(path: Path, number: int) -> int:
    without_locks(number)
    with open_hdf5(path) as file:
        return int(file["one"][()])


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^The file .* cannot be read \(Is a directory\); check the path and its"):
        open_hdf5(tmp_path)


def test_a_damaged_file_is_named_with_what_can_be_done(path: Path) -> None:
    path.write_bytes(b"no HDF5" * 99)
    with pytest.raises(
        UserError, match=r"is damaged or of another program \(.*\); restore it, move it away to make its results"
    ):
        open_hdf5(path)
