"""Several processes at once give the bytes of one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pipeline.world import PER_CLASS, SHARDS, World, broken_image, wherever
from tests.processes import environment, finish, start, wait_until
from tests.support import folder_bytes, image_folder


@pytest.mark.slow
def test_three_workers_give_the_bytes_of_one(world: World, tmp_path: Path, finished: Path) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = finish(start(*world.words(out, "--json", workers=3)))
    assert code == 0, stderr
    assert json.loads(stdout)["made"] == SHARDS
    assert folder_bytes(out) == folder_bytes(finished)
    shards = [json.loads(line)["shard"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert sorted(shards) == list(range(SHARDS))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """A real scheduler and workers on the loopback; yields the scheduler's address."""
    address = f"tcp://127.0.0.1:{free_port()}"
    dask = [sys.executable, "-m", "dask"]
    commands = [[*dask, "scheduler", "--host", address, "--no-dashboard"]]
    commands += [[*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]] * workers
    started = []
    try:
        for number, command in enumerate(commands):
            with (folder / f"dask-{number}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
                    )
                )
        yield address
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_a_running_scheduler_gives_the_same_bytes_also_after_a_failure(
    world: World, tmp_path: Path, finished: Path
) -> None:
    source = image_folder(tmp_path / "source", per_class=PER_CLASS)
    whole = broken_image(source / "n01440764/n01440764_0.JPEG")
    own = World(source=source, autoencoder=world.autoencoder, classifier=world.classifier)
    out = tmp_path / "out"
    with cluster(tmp_path, 2) as address:
        code, _, stderr = finish(start(*own.words(out, scheduler=address)))
        logs = "".join((tmp_path / f"dask-{number}.log").read_text() for number in range(3))
        assert code == 1, stderr + logs
        assert "n01440764_0.JPEG" in stderr
        assert "Traceback" not in stderr
        assert len(list(out.glob("*.tar"))) == SHARDS - 1
        assert len(set(re.findall(r"Register worker addr: (tcp://[\d.:]+)", logs))) == 2
        (source / "n01440764/n01440764_0.JPEG").write_bytes(whole)
        code, stdout, stderr = finish(start(*own.words(out, "--json", scheduler=address)))
    assert code == 0, stderr
    assert json.loads(stdout)["made"] == 1
    assert wherever(folder_bytes(out)) == wherever(folder_bytes(finished))


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
