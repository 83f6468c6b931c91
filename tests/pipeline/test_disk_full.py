"""A disk that is really full: a small tmpfs, and a limit on the size of files."""

import resource
from functools import partial
from pathlib import Path

import pytest

from tests.disk import resize
from tests.pipeline.world import SHARDS, World
from tests.processes import finish, start
from tests.support import folder_bytes


def no_half_files(out: Path, finished: Path) -> bool:
    """Whether every shard, mark and ledger part under its final name is the whole one."""
    kinds = ("*.tar", "stats/*.json", "stats/*.h5")
    return all(
        path.read_bytes() == (finished / path.relative_to(out)).read_bytes()
        for kind in kinds
        for path in out.glob(kind)
    )


# The data set takes about 480 KiB; the disk gets full in the manifest, a tar, a part of the ledger, a mark, the log,
# the joined ledger.
@pytest.mark.slow
@pytest.mark.parametrize("kibibytes", [8, 40, 64, 84, 100, 148, 160, 172, 184, 260, 380, 440, 456, 480, 500])
def test_the_run_stops_cleanly_and_resumes_once_there_is_room(
    world: World, disk: Path, finished: Path, kibibytes: int
) -> None:
    out = disk / "out"
    resize(disk, kibibytes)
    outcome = world.make(out)
    assert outcome.code in {1, 2}, f"the disk was not full: {outcome}"
    assert "No space left" in outcome.err
    assert outcome.out == ""
    assert not list(out.rglob("*.tmp"))
    assert no_half_files(out, finished)
    kept = len(list(out.glob("stats/*.json")))
    resize(disk, 8192)
    again = world.make(out, "--json")
    assert again.code == 0, again.err
    assert again.result["made"] == SHARDS - kept
    assert folder_bytes(out) == folder_bytes(finished)


@pytest.mark.slow
def test_a_real_process_says_it_without_a_traceback(world: World, disk: Path, finished: Path) -> None:
    out = disk / "out"
    resize(disk, 240)
    code, stdout, stderr = finish(start(*world.words(out)))
    assert code == 1, stderr
    assert stdout == ""
    assert "No space left on device" in stderr
    assert "Traceback" not in stderr
    assert 1 <= len(list(out.glob("stats/*.json"))) < SHARDS
    assert no_half_files(out, finished)
    resize(disk, 8192)
    assert world.make(out).code == 0
    assert folder_bytes(out) == folder_bytes(finished)


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_stops_it_cleanly(world: World, tmp_path: Path) -> None:
    out, most = tmp_path / "out", 30_000
    code, _, stderr = finish(
        start(
            *world.words(out, image_size=64),
            first=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY)),
        )
    )
    assert code == 1, stderr
    assert "shard 0: " in stderr
    assert "Traceback" not in stderr
    assert not list(out.glob("*.tar*"))
    assert world.make(out, image_size=64).code == 0
    assert all(tar.stat().st_size > most for tar in out.glob("*.tar"))
