"""Real processes that are interrupted and killed, and what the next run makes of it."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.pipeline.world import SHARDS, World
from tests.processes import finish, start, wait_until
from tests.support import dice_of, folder_bytes

KILLS = 10
EACH = {"image_size": 48, "steps": 6}
"""Makes a shard last long enough to be hit."""


@pytest.fixture(scope="module")
def uninterrupted(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    done = world.make(out, **EACH)
    assert done.code == 0, done.err
    return out


def marks(out: Path) -> int:
    return len(list(out.glob("stats/*.json")))


def works(out: Path) -> set[tuple[str, int]]:
    """Marks, and shards that are being written, with inodes that distinguish them from those of a killed run."""
    found = set()
    for folder in (out / "stats", *out.glob("working-*.tmp")):
        # The run removes files, and whole folders, while they are listed.
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            found |= {(entry.name, entry.inode()) for entry in entries}
    return found


@pytest.mark.slow
def test_ctrl_c_exits_130_and_the_next_run_completes(world: World, tmp_path: Path, uninterrupted: Path) -> None:
    for attempt in range(5):
        out = tmp_path / f"out-{attempt}"
        process = start(*world.words(out, **EACH))
        assert wait_until(lambda: marks(out) >= 2, process)  # noqa: B023
        os.kill(process.pid, signal.SIGINT)
        in_time = marks(out) < SHARDS - 2
        code, stdout, stderr = finish(process)
        # On a machine that lets this test wait, a run may have ended by then.
        if in_time:
            break
    assert in_time
    assert code == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert "the same command goes on" in stderr
    kept = marks(out)
    assert 2 <= kept < SHARDS
    outcome = world.make(out, "--json", **EACH)
    assert outcome.result["made"] == SHARDS - kept
    assert folder_bytes(out) == folder_bytes(uninterrupted)


def kill_at_a_random_moment(words: list[object], out: Path, dice: random.Random) -> bool:
    """Start the run, let it work for a while, kill it; return whether it was still at work."""
    before = works(out)
    process = start(*words)
    wait_until(lambda: bool(works(out) - before), process)
    time.sleep(dice.uniform(0, 0.15))
    process.kill()  # nothing, if it has ended
    code, _, stderr = finish(process)
    assert code in {0, -signal.SIGKILL}, stderr
    return code == -signal.SIGKILL


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_byte(world: World, tmp_path: Path, uninterrupted: Path) -> None:
    dice, finished = dice_of(20), 0
    reached: list[int] = []
    while len(reached) < KILLS:
        # A fast machine finishes before the tenth kill; the rest of them then fall on another folder.
        assert finished < KILLS, "the runs end before they can be killed"
        out = tmp_path / f"out{finished}"
        kept = marks(out)
        if kill_at_a_random_moment(world.words(out, **EACH), out, dice):
            reached.append(marks(out))
        else:
            assert marks(out) == SHARDS
            finished += 1
        assert marks(out) >= kept
        assert all(
            path.stat().st_size for folder in (out, out / "stats") for path in folder.glob("*") if path.is_file()
        )
    assert len(set(reached)) >= 3, "the kills fell on the same states"
    for folder in tmp_path.iterdir():
        done = world.make(folder, **EACH)
        assert done.code == 0, done.err
        assert folder_bytes(folder) == folder_bytes(uninterrupted)
