"""Several processes of one machine make the bytes of one process."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.pipeline.world import SHARDS, World
from tests.processes import finish, start, wait_until
from tests.support import folder_bytes


@pytest.mark.slow
def test_three_workers_give_the_bytes_of_one(world: World, tmp_path: Path, finished: Path) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = finish(start(*world.words(out, "--json", workers=3)))
    assert code == 0, stderr
    assert json.loads(stdout)["made"] == SHARDS
    assert folder_bytes(out) == folder_bytes(finished)
    shards = [json.loads(line)["shard"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert sorted(shards) == list(range(SHARDS))


@pytest.mark.slow
def test_ctrl_c_reaches_workers_and_the_next_run_completes(world: World, tmp_path: Path, finished: Path) -> None:
    out = tmp_path / "out"
    process = start(*world.words(out, workers=2))
    assert wait_until(lambda: any(out.glob("stats/*.json")), process)
    os.killpg(process.pid, signal.SIGINT)
    code, _, stderr = finish(process)
    assert code == 130, stderr
    assert "Traceback" not in stderr
    assert world.make(out).code == 0
    assert folder_bytes(out) == folder_bytes(finished)
