"""Slots of workers, and workers that cannot be checked."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Worker
from distributed.core import Status

from basics.errors import UserError
from pipeline.config import GenerationConfig
from pipeline.runners import worker_probe
from pipeline.worker import EnvironmentOf
from tests.cluster import cluster


@pytest.mark.slow
def test_a_worker_has_as_many_slots_as_its_gpus_and_threads_allow(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        started.add_worker("--nthreads", "4", "--resources", "GPU=1")
        started.add_worker("--nthreads", "2", "--resources", "GPU=3")
        client.wait_for_workers(3, timeout=60)
        assert sorted(worker_probe.worker_slots(client, {"GPU": 1}).values()) == [1, 2]
        assert sorted(worker_probe.worker_slots(client, {}).values()) == [1, 2, 4]


@pytest.mark.slow
def test_a_worker_that_is_paused_is_not_waited_for(tmp_path: Path) -> None:
    """Dask gives a worker nothing while its memory is short."""

    def pause(dask_worker: Worker) -> None:
        dask_worker.status = Status.paused

    with cluster(tmp_path, 0) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        for _ in range(2):
            started.add_worker("--memory-limit", "0")
        client.wait_for_workers(2, timeout=60)
        paused, running = client.nthreads()
        client.run(pause, workers=[paused])
        calls = {address: client.submit(os.getpid, workers=[address], pure=False) for address in (paused, running)}
        assert worker_probe.gather_replies(client, calls).keys() == {running}
        assert worker_probe.worker_slots(client, {}) == {running: 1}


@pytest.mark.slow
def test_a_scheduler_lost_while_workers_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_probe, "_POLL_INTERVAL", 0.2)
    with (
        cluster(tmp_path, 1) as started,
        Client(started.address, timeout=5) as client,  # type: ignore[no-untyped-call]
    ):
        client.wait_for_workers(1, timeout=60)
        calls = {address: client.submit(time.sleep, 60, workers=[address]) for address in client.nthreads()}
        started.scheduler.kill()
        with pytest.raises(UserError, match="scheduler was lost while"):
            worker_probe.gather_replies(client, calls)


def die(_: GenerationConfig) -> dict[str, Any]:
    """Kill the worker that it is called on."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def fail_to_import(_: GenerationConfig) -> dict[str, Any]:
    """Fail as a function does that a worker cannot import."""
    raise ModuleNotFoundError("No module named 'pipeline'")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "message"), [(die, "Every worker left"), (fail_to_import, "install the same advbn-gen there")]
)
def test_workers_that_cannot_be_checked(
    tmp_path: Path, function: EnvironmentOf, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_probe, "_POLL_INTERVAL", 0.2)
    with cluster(tmp_path, 2) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
        calls = {address: client.submit(function, None, workers=[address], pure=False) for address in client.nthreads()}
        with pytest.raises(UserError, match=message):
            worker_probe.gather_replies(client, calls)
