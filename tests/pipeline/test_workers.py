"""Workers that die, differ or cannot answer: what is theirs is made elsewhere, and no other shard is blamed."""

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client

from basics.errors import UserError
from pipeline import cluster as cluster_module
from pipeline import distribute
from pipeline.config import GenerationConfig
from pipeline.distribute import Distributed
from pipeline.generate import ShardResult
from pipeline.job import FactsOf, Job
from tests.cluster import cluster
from tests.pipeline.world import SHARDS, World


@dataclass(frozen=True)
class Scripted:
    """Stands for the work on a shard; what is made leaves a file."""

    folder: Path
    deadly: Sequence[int] = ()
    first_is_unlike: bool = False
    deadly_once: bool = False
    """Whether the others die of the first shard that they are given."""

    def __call__(self, _: Job, shard: int, reached: Callable[[int], None]) -> ShardResult:
        if self.first_is_unlike and self._is_first("unlike"):
            return ShardResult(shard=shard, unlike="software.torch: 2.9 -> 2.10")
        if shard in self.deadly or (self.deadly_once and self._is_first("dead")):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        reached(1)
        (self.folder / f"{shard}").write_text(str(os.getpid()))
        return ShardResult(shard=shard)

    def _is_first(self, what: str) -> bool:
        mine = self.folder / what
        try:
            with mine.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return mine.read_text() == str(os.getpid())
        return True


def scripted(job: Job, work: Scripted, shards: int, workers: int) -> tuple[list[ShardResult], list[tuple[int, int]]]:
    """Carry work out in real processes; return what is left of each shard, and what was told of progress."""
    told: list[tuple[int, int]] = []
    config = GenerationConfig(encoder="vgg", source=None, autoencoder=None, workers=workers)
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), cluster_module._started(config) as client:
        runner = Distributed(client, work=work)
        return list(runner.results(job, range(shards), lambda *words: told.append(words))), told


@pytest.fixture
def job(world: World, tmp_path: Path) -> Job:
    from pipeline.job import prepare, products_of

    config = GenerationConfig(
        encoder="vgg", source=str(world.source), autoencoder=str(world.autoencoder), limit=48, image_size=16,
        classifier_weights=str(world.classifier), batch_size=4, batches_per_shard=1, threads=1, device="cpu",
    )  # fmt: skip
    return prepare(config, products_of(config, tmp_path / "out", "x"))


@pytest.mark.slow
def test_a_shard_that_kills_workers_is_told_from_those_beside_it(job: Job, tmp_path: Path) -> None:
    results, told = scripted(job, Scripted(tmp_path, deadly=[5]), SHARDS, workers=2)
    failed = {result.shard: result.error for result in results if result.error}
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
    assert sorted(result.shard for result in results if not result.error) == list(range(SHARDS))
    refused = (tmp_path / "unlike").read_text()
    assert all((tmp_path / str(shard)).read_text() != refused for shard in range(SHARDS))
    assert re.search(r"worker tcp://\S+ is refused: .*software\.torch: 2\.9 -> 2\.10", capsys.readouterr().err)


@pytest.mark.slow
def test_a_worker_that_comes_back_beside_an_unlike_one_goes_on(job: Job, tmp_path: Path) -> None:
    """Started again it has another address than the one that its shards were meant for."""
    results, _ = scripted(job, Scripted(tmp_path, first_is_unlike=True, deadly_once=True), SHARDS, workers=2)
    assert sorted(result.shard for result in results if not result.error) == list(range(SHARDS))
    strange = {(tmp_path / name).read_text() for name in ("unlike", "dead")}
    assert len(strange) == 2
    assert all((tmp_path / str(shard)).read_text() not in strange for shard in range(SHARDS))


@pytest.mark.slow
def test_when_only_unlike_workers_are_left_the_run_ends(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribute, "_RETURN", 1.0)
    results, _ = scripted(job, Scripted(tmp_path, first_is_unlike=True), SHARDS, workers=1)
    assert [(result.error, result.hopeless) for result in results] == [("no worker is left that may be used.", True)]


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
    monkeypatch.setattr(cluster_module, "_LOOK", 0.2)
    with cluster(tmp_path, 2) as started, Client(started.address) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2, timeout=60)
        asked = {address: client.submit(question, None, workers=[address], pure=False) for address in client.nthreads()}
        with pytest.raises(UserError, match=said):
            cluster_module._answers(client, asked)


def test_a_task_is_small(job: Job) -> None:
    import pickle

    # Of which the names of 1,000 classes take ten thousand.
    assert max(len(pickle.dumps(job.part(shard))) for shard in range(SHARDS)) < 16_000
    part = pickle.loads(pickle.dumps(job.part(7)))
    for index in range(28, 32):
        assert part.source.read(part.records[index]) == job.source.read(job.records[index])
        assert part.keys[index] == job.keys[index]
    with pytest.raises(KeyError):
        part.records[27]
