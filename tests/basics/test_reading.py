"""Existence and content of files, local and remote; faults are no absences."""

from pathlib import Path
from unittest import mock

import pytest

from basics.paths import AnyPath, as_path, is_remote
from basics.reading import exists, is_file, is_folder, local_copy, read_bytes, read_range


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> AnyPath:
    """A folder with a file of 10 bytes and an empty one."""
    path: AnyPath = tmp_path if request.param == "disk" else as_path(f"memory://reading/{tmp_path.name}")
    (path / "x").write_bytes(b"0123456789")
    (path / "empty").write_bytes(b"")
    return path


def test_files_folders_and_absent_ones_are_distinguished(folder: AnyPath) -> None:
    kinds = {folder: (True, False, True), folder / "x": (True, True, False), folder / "y": (False, False, False)}
    for path, expected in kinds.items():
        assert (exists(path), is_file(path), is_folder(path)) == expected, path
    assert not exists(folder / "x" / "below a file")


def test_a_fault_is_not_an_absence(folder: AnyPath) -> None:
    fault = PermissionError("denied")
    name = "basics.reading.remote_info" if is_remote(folder) else "pathlib.Path.stat"
    with mock.patch(name, side_effect=fault), pytest.raises(PermissionError):
        exists(folder / "y")


def test_whole_files_are_read(folder: AnyPath) -> None:
    assert read_bytes(folder / "x") == b"0123456789"
    assert read_bytes(folder / "empty") == b""
    with pytest.raises(FileNotFoundError):
        read_bytes(folder / "y")


def test_a_range_of_a_remote_file_is_read() -> None:
    path = as_path("memory://reading/range")
    assert is_remote(path)
    path.write_bytes(b"0123456789")
    assert read_range(path, 2, 5) == b"234"
    assert read_range(path, 8, None) == b"89"


def test_a_local_copy_exists_as_long_as_it_is_used(folder: AnyPath) -> None:
    with local_copy(folder / "x") as path:
        assert (path.name, path.read_bytes()) == ("x", b"0123456789")
        assert (path == folder / "x") is not is_remote(folder)
    assert path.exists() is not is_remote(folder)
    with pytest.raises(FileNotFoundError), local_copy(folder / "y") as path:
        path.read_bytes()
