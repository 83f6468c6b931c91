"""A process is made ready for a run once, and says so if it would make other bytes."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.generate import generate_shard
from pipeline.job import Job, prepare, products_of
from pipeline.outcome import Outcome
from pipeline.worker import Requirements, WrongEnvironmentError, load_networks, own_environment, ready_worker
from tests.pipeline.world import World
from tests.support import tiny_autoencoder, tiny_classifier


@pytest.fixture
def started(job: Job) -> Job:
    """The job with folders to write to."""
    for dataset in job.datasets:
        (dataset.folder / "stats").mkdir(parents=True)
    return job


def never(name: str) -> Callable[..., None]:
    def called(*_: object) -> None:
        raise AssertionError(f"{name} was called")

    return called


@pytest.mark.slow
def test_a_second_shard_loads_nothing(started: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    assert generate_shard(started.part(0), 0).done
    for name in ("load_autoencoder", "load_with_weights", "choose_compute"):
        monkeypatch.setattr(f"pipeline.worker.{name}", never(name))
    assert generate_shard(started.part(1), 1).done
    assert ready_worker(started.requirements) is ready_worker(started.part(2).requirements)


@pytest.mark.slow
def test_a_run_with_other_networks_loads_them(job: Job, tmp_path: Path) -> None:
    first = ready_worker(job.requirements)
    other = replace(job.config, autoencoder=str(tiny_autoencoder(tmp_path / "other.safetensors", seed=9)))
    second = ready_worker(prepare(other, products_of(other, tmp_path / "other", "x")).requirements)
    assert second.environment["autoencoder"] != first.environment["autoencoder"]
    assert ready_worker(job.requirements).environment == first.environment


@pytest.mark.slow
def test_networks_that_were_trained_again_under_the_same_name_are_noticed(
    job: Job, world: World, tmp_path: Path
) -> None:
    path = tmp_path / "classifier.safetensors"
    config = replace(job.config, classifier_weights=str(shutil.copy(world.classifier, path)))
    before = own_environment(config, classes=1000)
    tiny_classifier(path, 1000, seed=77)
    after = own_environment(config, classes=1000)
    assert after["classifier"] != before["classifier"]
    # A worker that still has the old file loaded takes the new one for a run that was prepared with it ...
    shutil.copy(world.classifier, path)
    own_environment(config, classes=1000)
    tiny_classifier(path, 1000, seed=77)
    requirements = Requirements(config=config, classes=1000, threads=1, environment=after)
    assert load_networks(config, 1000).environment == before
    assert ready_worker(requirements).environment == after
    # ... and does not go on with it in a run that was prepared with the old one.
    with pytest.raises(WrongEnvironmentError, match=r"classifier\.sha256: \w+ -> \w+"):
        ready_worker(replace(requirements, environment=before))


@pytest.mark.parametrize(
    ("group", "entry", "message"),
    [("software", "torch", "software.torch: 1.0 -> "), ("arithmetic", "machine", "arithmetic.machine: 1.0 -> ")],
)
def test_another_environment_is_an_outcome_of_its_own(started: Job, group: str, entry: str, message: str) -> None:
    own = started.requirements.environment
    other = replace(started.requirements, environment=own | {group: own[group] | {entry: "1.0"}})
    result = generate_shard(replace(started, requirements=other), 0)
    assert result.outcome is Outcome.WRONG_ENVIRONMENT
    assert message in result.reason
    assert not list(started.datasets[0].folder.rglob("*.*"))


@pytest.mark.slow
def test_threads_are_set_for_every_shard(started: Job) -> None:
    """Other code of the process may set them between two shards, and bytes depend on them."""
    assert generate_shard(started, 0).done
    torch.set_num_threads(2)
    assert generate_shard(started, 1).done
    assert torch.get_num_threads() == started.requirements.threads == 1


def test_a_replay_needs_no_classifier(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.worker.load_with_weights", never("load_with_weights"))
    assert own_environment(job.config, classes=None).keys() == {"autoencoder", "arithmetic", "software"}
    assert load_networks(job.config, None).perturber is None
