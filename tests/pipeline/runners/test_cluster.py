"""Workers that die, differ or cannot answer: what is theirs is made elsewhere, and no other shard is blamed."""

import os
import pickle
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from basics.errors import UserError, WorkError
from pipeline.config import GenerationConfig
from pipeline.generate import generate_shard
from pipeline.job import FactsOf, Job, own_facts
from pipeline.outcome import Outcome
from pipeline.run import run
from pipeline.runners import cluster as cluster_module
from pipeline.runners import distributed as distribute
from pipeline.runners import worker_probe as scheduler
from pipeline.runners.distributed import Distributed
from tests.cluster import cluster
from tests.pipeline.runners.scripted import Late, Scripted, Talkative, scripted
from tests.pipeline.world import SHARDS, World
from tests.support import refused, tiny_autoencoder


@pytest.mark.slow
def test_a_shard_that_kills_workers_is_told_from_those_beside_it(job: Job, tmp_path: Path) -> None:
    results, told = scripted(job, Scripted(tmp_path, deadly=[5]), SHARDS, workers=2)
    failed = {result.shard: result.reason for result in results if not result.done}
    assert failed.keys() == {5}
    assert "every worker that made it died" in failed[5]
    assert sorted(result.shard for result in results) == list(range(SHARDS))
    assert {path.name for path in tmp_path.glob("[0-9]*")} == {str(shard) for shard in range(SHARDS) if shard != 5}
    assert {shard for shard, _ in told} == set(range(SHARDS)) - {5}


@pytest.mark.slow
def test_a_worker_that_turns_out_unlike_is_given_nothing_more(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, _ = scripted(job, Scripted(tmp_path, first_is_unlike=True), SHARDS, workers=2)
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))
    refused = (tmp_path / "unlike").read_text()
    assert all((tmp_path / str(shard)).read_text() != refused for shard in range(SHARDS))
    assert re.search(r"worker tcp://\S+ is refused: .*software\.torch: 2\.9 -> 2\.10", capsys.readouterr().err)


@pytest.mark.slow
def test_a_worker_that_comes_back_beside_an_unlike_one_goes_on(job: Job, tmp_path: Path) -> None:
    """Started again it has another address than the one that its shards were meant for."""
    results, _ = scripted(job, Scripted(tmp_path, first_is_unlike=True, deadly_once=True), SHARDS, workers=2)
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))
    strange = {(tmp_path / name).read_text() for name in ("unlike", "dead")}
    assert len(strange) == 2
    assert all((tmp_path / str(shard)).read_text() not in strange for shard in range(SHARDS))


@pytest.mark.slow
def test_workers_that_join_a_busy_run_are_used(job: Job, tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(1, timeout=60)
        results = Distributed(client, work=Talkative(tmp_path)).results(job, range(SHARDS), lambda *_: None)
        next(results)
        for _ in range(3):
            started.add_worker()
        client.wait_for_workers(4, timeout=60)
        assert len(list(results)) == SHARDS - 1
    spans = [tuple(map(float, path.read_text().split())) for path in tmp_path.glob("[0-9]*")]
    # Before others join, two shards are with the scheduler: one in work, one waiting.
    assert max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 60])
def test_marks_that_are_seen_late_are_waited_for(
    job: Job, tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_LATE", seconds)
    with cluster(tmp_path, 2) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
        runner = cluster_module.OtherMachines(Distributed(client, work=Late()))
        if seconds:
            assert run(job, runner).made == SHARDS
        else:
            with pytest.raises(WorkError, match="it was removed or changed while"):
                run(job, runner)


@pytest.mark.slow
def test_results_that_are_not_heard_are_asked_for(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they went with their worker, and that was the only one that they were meant for."""
    subscribe, killed = Client.subscribe_topic, list[str]()

    def hard_of_hearing(client: Client, topic: str, handler: Callable[[Any], None]) -> None:
        def heard(event: Any) -> None:
            if not isinstance(event[1], bytes):
                handler(event)
            elif again := re.search(r"-0*(\d+)-\d+$", pickle.loads(event[1]).key):
                worker = (tmp_path / again[1]).read_text()
                if not killed:
                    killed.append(worker)
                    os.kill(int(worker), signal.SIGKILL)

        subscribe(client, topic, heard)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Client, "subscribe_topic", hard_of_hearing)
    results, _ = scripted(job, Scripted(tmp_path, first_is_unlike=True), SHARDS, workers=2)
    assert killed
    assert sorted(result.shard for result in results if result.done) == list(range(SHARDS))


def test_a_worker_has_places_for_as_many_shards_as_its_gpus_and_threads_allow(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        started.add_worker("--nthreads", "4", "--resources", "GPU=1")
        started.add_worker("--nthreads", "2", "--resources", "GPU=3")
        client.wait_for_workers(3, timeout=60)
        assert sorted(scheduler.able_workers(client, {"GPU": 1}).values()) == [1, 2]
        assert sorted(scheduler.able_workers(client, {}).values()) == [1, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize(("unlike", "workers", "failures"), [(True, 2, 1), (False, 1, 3)])
def test_a_deadly_shard_ends_also_where_workers_are_few(
    job: Job, tmp_path: Path, unlike: bool, workers: int, failures: int
) -> None:
    """Each death costs the only worker that may have it, and that comes back under another address."""
    results, _ = scripted(job, Scripted(tmp_path, deadly=[5], first_is_unlike=unlike), SHARDS, workers, failures)
    assert sorted(result.shard for result in results) == list(range(SHARDS))
    failed = {result.shard: result.reason for result in results if not result.done}
    assert failed.keys() == {5}
    assert "every worker that made it died" in failed[5]


def test_a_worker_that_cannot_load_the_networks_is_unlike(job: Job, tmp_path: Path) -> None:
    """A shard that it is given is not to blame, and goes to another."""
    moved = replace(job, config=replace(job.config, autoencoder=str(tmp_path / "none.safetensors")))
    result = generate_shard(moved, 3)
    assert result.outcome is Outcome.WRONG_ENVIRONMENT
    assert "none.safetensors" in result.reason


def test_a_worker_is_asked_about_the_files_as_they_are_now(job: Job, world: World, tmp_path: Path) -> None:
    path = tmp_path / "autoencoder.safetensors"
    config = replace(job.config, autoencoder=str(shutil.copy(world.autoencoder, path)))
    facts = partial(own_facts, classes=1000)
    before = cluster_module._afresh(facts, config)["autoencoder"]
    tiny_autoencoder(path, seed=77)
    assert cluster_module._afresh(facts, config)["autoencoder"] != before


def test_a_scheduler_lost_while_workers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_LOOK", 0.2)
    with (
        cluster(tmp_path, 1) as started,
        Client(started.address, timeout=5) as client,  # type: ignore[no-untyped-call]
    ):
        client.wait_for_workers(1, timeout=60)
        asked = {address: client.submit(time.sleep, 60, workers=[address]) for address in client.nthreads()}
        started.scheduler.kill()
        with pytest.raises(UserError, match="scheduler was lost while"):
            scheduler.answers(client, asked)


def test_an_address_with_tls_needs_its_settings(world: World, tmp_path: Path) -> None:
    said = refused(*world.words(tmp_path / "out", scheduler="tls://127.0.0.1:1"))
    assert "distributed.comm.tls" in said
    assert "No Dask scheduler answers at ''" in refused(*world.words(tmp_path / "out", scheduler=""))


@pytest.mark.slow
def test_when_only_unlike_workers_are_left_the_run_ends(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribute, "_RETURN", 1.0)
    results, _ = scripted(job, Scripted(tmp_path, first_is_unlike=True), SHARDS, workers=1)
    assert [(result.outcome, result.reason) for result in results] == [
        (Outcome.FATAL, "no worker is left that may be used.")
    ]


def leave(_: GenerationConfig) -> dict[str, Any]:
    """Kills the worker that is asked."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def stumble(_: GenerationConfig) -> dict[str, Any]:
    """Fails as a question does that a worker cannot load."""
    raise ModuleNotFoundError("No module named 'pipeline'")


@pytest.mark.parametrize(
    ("question", "said"), [(leave, "Every worker left"), (stumble, "install the same advbn-gen there")]
)
def test_workers_that_cannot_tell_what_they_are(
    tmp_path: Path, question: FactsOf, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_LOOK", 0.2)
    with cluster(tmp_path, 2) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
        asked = {address: client.submit(question, None, workers=[address], pure=False) for address in client.nthreads()}
        with pytest.raises(UserError, match=said):
            scheduler.answers(client, asked)


def test_a_task_is_small(job: Job) -> None:
    # Of which the names of 1,000 classes take ten thousand.
    assert max(len(pickle.dumps(job.part(shard))) for shard in range(SHARDS)) < 16_000
    part = pickle.loads(pickle.dumps(job.part(7)))
    for index in range(28, 32):
        assert part.source.read(part.records[index]) == job.source.read(job.records[index])
        assert part.keys[index] == job.keys[index]
    with pytest.raises(KeyError):
        part.records[27]
