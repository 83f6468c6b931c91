"""Which run owns an output folder: one rule for every kind of output."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from basics.errors import UserError
from basics.ownership import FolderTakenError, Owner, lock_folder, occupied_folder_error, owner_of, require_owner
from basics.paths import as_path
from tests.disk import without_locks
from tests.processes import in_a_process
from tests.support import Outcome, advbn_gen

IDENTITY: dict[str, Any] = {"seed": 0, "attack": {"eps": 1.1, "layers": (1, 2)}}
RECORDED: dict[str, Any] = {"seed": 0, "attack": {"eps": 1.1, "layers": [1, 2]}}
OTHER: dict[str, Any] = {"seed": 0, "attack": {"eps": 0.5, "layers": [1, 2]}}


@pytest.mark.parametrize(
    ("recorded", "files", "owner"),
    [
        (None, "", Owner.NOBODY),
        (None, "other files", Owner.UNKNOWN),
        (RECORDED, "", Owner.THIS_RUN),
        (RECORDED, "other files", Owner.THIS_RUN),
        (OTHER, "", Owner.ANOTHER_RUN),
        ({}, "", Owner.ANOTHER_RUN),
    ],
)
def test_record_and_files_say_whose_a_folder_is(recorded: dict[str, Any] | None, files: str, owner: Owner) -> None:
    assert owner_of(recorded=recorded, identity=IDENTITY, files=files) is owner


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("recorded", [None, RECORDED])
def test_free_and_own_folders_are_used(recorded: dict[str, Any] | None, overwrite: bool) -> None:
    require_owner(Path("out"), recorded=recorded, identity=IDENTITY, overwrite=overwrite)


def test_another_run_is_refused_with_the_differences_and_the_mend() -> None:
    with pytest.raises(UserError) as refused:
        require_owner(Path("out"), recorded=OTHER, identity=IDENTITY)
    assert str(refused.value) == (
        "The folder out holds another run (attack.eps: 0.5 -> 1.1); give another --out, or --overwrite to start anew."
    )
    require_owner(Path("out"), recorded=OTHER, identity=IDENTITY, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_without_a_record_are_never_overwritten(overwrite: bool) -> None:
    with pytest.raises(UserError, match=r"^The folder out holds a report\.html of somebody; give another --out\.$"):
        require_owner(
            Path("out"), recorded=None, identity=IDENTITY, files="a report.html of somebody", overwrite=overwrite
        )


def test_what_is_in_the_way_and_the_mend_can_be_named() -> None:
    assert (
        str(occupied_folder_error(Path("w"), "photos", "give an empty folder"))
        == "The folder w holds photos; give an empty folder."
    )
    with pytest.raises(UserError, match=r"holds another world \(seed: 1 -> 0\); give another folder\.$"):
        require_owner(
            Path("w"), recorded={"seed": 1}, identity={"seed": 0}, other="another world", advice="give another folder"
        )


def test_two_runs_never_hold_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    with (
        lock_folder(folder),
        pytest.raises(FolderTakenError, match=r"Another run is writing to .*/a/b; wait for it, or give another --out"),
        lock_folder(folder),
    ):
        pytest.fail("both hold it")
    with lock_folder(folder):
        assert list(folder.iterdir()) == []


def test_a_lock_is_let_go_of_when_a_run_fails(tmp_path: Path) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(RuntimeError), lock_folder(tmp_path):
            raise RuntimeError
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_file_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="is a file, not a folder; give another folder"),
        lock_folder(tmp_path / "file", "give another folder"),
    ):
        pytest.fail("held")


def test_in_a_store_nothing_is_locked() -> None:
    folder = as_path("memory://ownership/set")
    with lock_folder(folder), lock_folder(folder):
        assert not list(folder.parent.glob("*/*")), "the file that tried whether it can be written is gone"


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_before_work(tmp_path: Path, number: int) -> None:
    done = in_a_process(command_without_locks, number, "sample-data", tmp_path / "world")
    assert done.code == 2
    assert done.err == (
        f"Error: The file system of {tmp_path}/world has no locks ({os.strerror(number)}), so another run could write "
        "to the folder at the same time; give another folder on another file system, such as a local disk.\n"
    )
    assert not list((tmp_path / "world").iterdir())


def command_without_locks(number: int, *words: object) -> Outcome:
    without_locks(number)
    return advbn_gen(*words)


def test_a_folder_that_cannot_be_locked_for_another_reason_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with (
        pytest.raises(UserError, match=r"cannot be locked \(Input/output error\); check its permissions, or"),
        lock_folder(tmp_path),
    ):
        pytest.fail("locked")
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
