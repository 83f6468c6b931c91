"""Workers that die, differ or fail: their shards are made by others or later, and no other shard is blamed."""

import re
import time
from pathlib import Path

import pytest
from distributed import Client, Future, Scheduler

from pipeline.job import Job
from pipeline.outcome import Outcome
from pipeline.runners import dask_runner, worker_pool
from pipeline.runners.dask_runner import DaskRunner
from tests.cluster import cluster
from tests.pipeline.runners.shard_functions import BrokenWorkers, Scripted, SlowWithProgress, StoreOutage, make_shards
from tests.pipeline.world import SHARDS


@pytest.mark.slow
def test_a_shard_that_kills_workers_is_not_confused_with_those_beside_it(job: Job, tmp_path: Path) -> None:
    results, progress = make_shards(job, Scripted(tmp_path, fatal_shards=[5]), SHARDS, workers=2)
    failed = {result.shard: result.reason for result in results if not result.done}
    assert failed.keys() == {5}
    assert "every worker that made it died" in failed[5]
    assert sorted(result.shard for result in results) == list(range(SHARDS))
    assert {path.name for path in tmp_path.glob("[0-9]*")} == {str(shard) for shard in range(SHARDS) if shard != 5}
    assert {shard for shard, _ in progress} == set(range(SHARDS)) - {5}


@pytest.mark.slow
@pytest.mark.parametrize(("differs", "workers", "failures"), [(True, 2, 1), (False, 1, 3)])
def test_a_shard_that_kills_workers_fails_also_where_workers_are_few(
    job: Job, tmp_path: Path, differs: bool, workers: int, failures: int
) -> None:
    """Each death costs the only worker that may make it, and that is restarted at another address."""
    results, _ = make_shards(
        job, Scripted(tmp_path, fatal_shards=[5], first_differs=differs), SHARDS, workers, failures
    )
    assert sorted(result.shard for result in results) == list(range(SHARDS))
    failed = {result.shard: result.reason for result in results if not result.done}
    assert failed.keys() == {5}
    assert "every worker that made it died" in failed[5]


@pytest.mark.slow
def test_a_worker_whose_environment_differs_gets_no_more_shards(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, _ = make_shards(job, Scripted(tmp_path, first_differs=True), SHARDS, workers=2)
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))
    refused = (tmp_path / "differs").read_text()
    assert all((tmp_path / str(shard)).read_text() != refused for shard in range(SHARDS))
    assert re.search(r"worker tcp://\S+ is refused: .*software\.torch: 2\.9 -> 2\.10", capsys.readouterr().err)


@pytest.mark.slow
def test_a_worker_that_is_restarted_beside_a_refused_one_goes_on(job: Job, tmp_path: Path) -> None:
    """The restarted worker has another address than the one that its shards were submitted for."""
    results, _ = make_shards(job, Scripted(tmp_path, first_differs=True, others_die_once=True), SHARDS, workers=2)
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))
    excluded = {(tmp_path / name).read_text() for name in ("differs", "dead")}
    assert len(excluded) == 2
    assert all((tmp_path / str(shard)).read_text() not in excluded for shard in range(SHARDS))


@pytest.mark.slow
def test_when_only_refused_workers_are_left_the_run_is_aborted(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_runner, "_REPLACEMENT_TIMEOUT", 1.0)
    results, _ = make_shards(job, Scripted(tmp_path, first_differs=True), SHARDS, workers=1)
    assert [(result.outcome, result.reason) for result in results] == [
        (Outcome.FATAL, "no worker is left that may be used.")
    ]


@pytest.mark.slow
def test_workers_that_join_a_busy_run_are_used(job: Job, tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(1, timeout=60)
        runner = DaskRunner(client, shard_function=SlowWithProgress(tmp_path))
        results = runner.results(job, range(SHARDS), lambda *_: None)
        next(results)
        for _ in range(3):
            started.add_worker()
        client.wait_for_workers(4, timeout=60)
        assert len(list(results)) == SHARDS - 1
    spans = [tuple(map(float, path.read_text().split())) for path in tmp_path.glob("[0-9]*")]
    # Before others join, two shards are with the scheduler: one in work, one waiting.
    assert max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans) >= 3


@pytest.mark.slow
def test_a_worker_without_our_code_gets_no_shard(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['pipeline'] = None")
    with cluster(tmp_path, 2) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        started.add_worker(PYTHONPATH=str(tmp_path))
        client.wait_for_workers(3, timeout=60)
        runner = DaskRunner(client, shard_function=SlowWithProgress(tmp_path))
        results = list(runner.results(job, range(SHARDS), lambda *_: None))
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))
    messages = capsys.readouterr().err
    assert messages.count("is refused: it cannot load what a shard needs (ModuleNotFoundError") == 1


@pytest.mark.slow
def test_a_shard_that_one_worker_cannot_make_is_made_by_another(job: Job, tmp_path: Path) -> None:
    results, _ = make_shards(job, Scripted(tmp_path, first_has_no_mount=True), SHARDS, workers=3)
    assert sorted(result.shard for result in results) == list(range(SHARDS))
    assert not [result.reason for result in results if not result.done]


@pytest.mark.slow
def test_a_transient_fault_that_stays_is_tried_three_times(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "_FIRST_BACKOFF", 1.0)
    results, _ = make_shards(job, Scripted(tmp_path, first_has_no_mount=True), 2, workers=1)
    assert [result.reason for result in sorted(results, key=lambda result: result.shard)] == [
        "shard 0: no such mount.", "shard 1: no such mount.",
    ]  # fmt: skip
    assert [(tmp_path / f"tries-{shard}").read_text() for shard in (0, 1)] == ["xxx", "xxx"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["raised", "disk full"])
def test_broken_workers_get_no_shards_for_a_while(
    job: Job, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three of them fail at once at every shard, and so are free for more while the others are busy."""
    results, _ = make_shards(job, BrokenWorkers(tmp_path, 3, fault), SHARDS, workers=5)
    assert sorted(result.shard for result in results) == list(range(SHARDS))
    assert not [result.reason for result in results if not result.done]
    assert capsys.readouterr().err.count(" failed and gets no shards for 10 s") == 3


@pytest.mark.slow
def test_a_short_outage_of_a_store_does_not_use_up_the_attempts(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker_pool, "_FIRST_BACKOFF", 1.0)
    begun = time.time()
    results, _ = make_shards(job, StoreOutage(tmp_path, begun + 12), SHARDS, workers=2)
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))
    tries = [path.name for path in tmp_path.glob("*-*") if float(path.name.partition("-")[2]) < begun + 12]
    # Two workers, two shards submitted to each at a time, after backoffs of 1, 2 and 4 s.
    assert 4 <= len(tries) <= 2 * 2 * 4
    assert "All workers have failed and get no shards for a while" in capsys.readouterr().err


@pytest.mark.slow
def test_a_shard_that_another_client_cancels_is_submitted_again(job: Job, tmp_path: Path) -> None:
    def shard_keys(dask_scheduler: Scheduler) -> list[str]:
        return [str(key) for key in dask_scheduler.tasks if str(key).startswith("advbn-shard")]

    with cluster(tmp_path, 2) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
        runner = DaskRunner(client, shard_function=SlowWithProgress(tmp_path))
        results = runner.results(job, range(SHARDS), lambda *_: None)
        made = [next(results)]
        with Client(started.address, set_as_default=False) as other:  # type: ignore[no-untyped-call]
            keys = other.run_on_scheduler(shard_keys)
            assert keys
            other.cancel([Future(key, other) for key in keys], force=True)
        made += results
    assert sorted(result.shard for result in made if result.done) == list(range(SHARDS))
