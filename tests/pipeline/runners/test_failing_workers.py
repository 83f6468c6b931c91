"""Workers that fail without dying: what they fail at is made by others, or later, and does not use up the run."""

import os
import time
from pathlib import Path

import pytest
from distributed import Client, Future, Scheduler, Worker
from distributed.core import Status

from pipeline.job import Job
from pipeline.runners import worker_pool as roster
from pipeline.runners import worker_probe as scheduler
from pipeline.runners.distributed import Distributed
from tests.cluster import cluster
from tests.pipeline.runners.scripted import Away, Scripted, Sick, Talkative, scripted
from tests.pipeline.world import SHARDS


@pytest.mark.slow
def test_a_fault_of_one_worker_is_got_over_by_the_others(job: Job, tmp_path: Path) -> None:
    results, _ = scripted(job, Scripted(tmp_path, first_has_no_disk=True), SHARDS, workers=3)
    assert sorted(result.shard for result in results) == list(range(SHARDS))
    assert not [result.reason for result in results if not result.done]


@pytest.mark.slow
def test_a_fault_that_does_not_pass_is_tried_three_times(job: Job, tmp_path: Path) -> None:
    results, _ = scripted(job, Scripted(tmp_path, first_has_no_disk=True), 2, workers=1)
    assert [result.reason for result in sorted(results, key=lambda result: result.shard)] == [
        "shard 0: no such mount.", "shard 1: no such mount.",
    ]  # fmt: skip
    assert [(tmp_path / f"tries-{shard}").read_text() for shard in (0, 1)] == ["xxx", "xxx"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["raised", "disk full"])
def test_sick_workers_are_given_a_rest(
    job: Job, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three of them fail at once at whatever they are given, and so are free for more while the others are busy."""
    results, _ = scripted(job, Sick(tmp_path, 3, fault), SHARDS, workers=5)
    assert sorted(result.shard for result in results) == list(range(SHARDS))
    assert not [result.reason for result in results if not result.done]
    assert capsys.readouterr().err.count("is given a rest") == 3


@pytest.mark.slow
def test_a_store_that_is_away_for_a_while_does_not_use_up_the_run(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(roster, "_REST", 1.0)
    begun = time.time()
    results, _ = scripted(job, Away(tmp_path, begun + 12), SHARDS, workers=2)
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))
    tries = [path.name for path in tmp_path.glob("*-*") if float(path.name.partition("-")[2]) < begun + 12]
    # Two workers, two shards sent to each at a time, after rests of 1, 2 and 4 s.
    assert 4 <= len(tries) <= 2 * 2 * 4
    assert "All workers rest" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_without_our_code_is_given_nothing(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['pipeline'] = None")
    with cluster(tmp_path, 2) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        started.add_worker(PYTHONPATH=str(tmp_path))
        client.wait_for_workers(3, timeout=60)
        results = list(Distributed(client, work=Talkative(tmp_path)).results(job, range(SHARDS), lambda *_: None))
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))
    said = capsys.readouterr().err
    assert said.count("is refused: it cannot load what a shard needs (ModuleNotFoundError") == 1


@pytest.mark.slow
def test_what_another_client_cancels_is_sent_again(job: Job, tmp_path: Path) -> None:
    def ours(dask_scheduler: Scheduler) -> list[str]:
        return [str(key) for key in dask_scheduler.tasks if str(key).startswith("advbn-shard")]

    with cluster(tmp_path, 2) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
        results = Distributed(client, work=Talkative(tmp_path)).results(job, range(SHARDS), lambda *_: None)
        made = [next(results)]
        with Client(started.address, set_as_default=False) as other:  # type: ignore[no-untyped-call]
            keys = other.run_on_scheduler(ours)
            assert keys
            other.cancel([Future(key, other) for key in keys], force=True)
        made += results
    assert sorted(result.shard for result in made if result.done) == list(range(SHARDS))


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
        asked = {address: client.submit(os.getpid, workers=[address], pure=False) for address in (paused, running)}
        assert scheduler.answers(client, asked).keys() == {running}
        assert scheduler.able_workers(client, {}) == {running: 1}


def test_a_worker_that_fails_rests_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    workers = roster.Roster()
    workers.update({"a": 1, "b": 2}, {"a": 1, "b": 2})
    for expected in (10, 20, 40, 80, 160, 320, 600, 600):
        assert workers.failed("a", 0) == expected
        assert workers.failed("a", 1) == 0
        assert workers.rested() == {"b": 2}
        assert workers.allowed(0) == workers.allowed(1) == ["b"]
        now += expected + 1
        assert workers.rested() == {"a": 1, "b": 2}
        assert workers.allowed(0) == ["b"]
        assert workers.allowed(2) == ["a", "b"]
    workers.made("a")
    assert workers.failed("a", 0) == 10
    assert workers.failed("b", 0) == 10
    assert workers.allowed(2) == []
    now += 11
    assert workers.allowed(0) == ["a", "b"]


def test_a_refused_worker_may_come_back_mended() -> None:
    workers = roster.Roster()
    both = {"a": 1, "b": 1}
    workers.update(both, both)
    assert [workers.refuse("a"), workers.refuse("a")] == [True, False]
    workers.update(both, both)
    assert workers.usable == {"b": 1}
    workers.update({"b": 1}, {"b": 1})
    workers.update(both, {"b": 1})
    assert workers.usable == {"b": 1}
    workers.update(both, both)
    assert workers.usable == both
