"""`--dry-run --estimate`: hours, disk and memory of a run, computed from batches that are really made."""

import time
from pathlib import Path
from typing import Any

import pytest

from basics.errors import WorkError
from pipeline import estimate as estimating
from pipeline.job import Job
from pipeline.run import missing_shards
from tests.pipeline.world import IMAGES, SHARDS, World, tar_of
from tests.support import folder_bytes, refused

DRY = ("--dry-run", "--estimate")


@pytest.mark.slow
def test_the_cost_is_that_of_the_timed_batches(world: World, tmp_path: Path, finished: Path) -> None:
    outcome = world.make(tmp_path / "out", *DRY, "--json", batches_per_shard=6)
    assert outcome.code == 0, outcome.err
    assert not (tmp_path / "out").exists()
    found: dict[str, Any] = outcome.result["estimate"]
    assert (found["timed_batches"], found["timed_images"]) == (5, 20), "the first of a shard's six batches warms up"
    for part, images in (("to_do", IMAGES), ("imagenet", 50_000)):
        assert found[part]["images"] == images
        assert found[part]["hours"] == pytest.approx(images * found["seconds"] / found["timed_images"] / 3600)
    made = sum(len(content) for name, content in folder_bytes(finished).items() if name.endswith((".tar", ".h5")))
    assert found["to_do"]["disk_bytes"] == pytest.approx(made, rel=0.5)
    assert found["memory_bytes"] > 100e6
    assert found["device_memory_bytes"] is None
    assert found["free_bytes"] > 0
    assert "cores" in found["machine"]


@pytest.mark.slow
def test_only_what_is_missing_is_to_do_and_processes_share_it(world: World, copied: Path) -> None:
    tar_of(copied, 4).unlink()
    before = folder_bytes(copied)
    outcome = world.make(copied, *DRY, workers=2)
    assert outcome.code == 0, outcome.err
    assert folder_bytes(copied) == before
    assert "timed a batch of 4 images in all on " in outcome.out
    assert "in each of 2 processes; times if they do not slow each other down" in outcome.out
    assert "to do: 4 images, " in outcome.out
    assert "ImageNet's validation set at these settings: 50000 images, " in outcome.out
    found = world.make(copied, *DRY, "--json", workers=2).result["estimate"]
    # One process makes the only shard, and of ImageNet's 12,500 shards of 4 images each makes half.
    assert found["to_do"]["hours"] == pytest.approx(found["seconds"] / 3600)
    assert found["imagenet"]["hours"] == pytest.approx(25_000 / 4 * found["seconds"] / 3600)


@pytest.mark.slow
def test_what_is_overwritten_is_to_do_and_what_is_there_is_not(world: World, copied: Path) -> None:
    for more, images in (((), 0), (("--overwrite",), IMAGES)):
        result = world.make(copied, *DRY, "--json", *more).result
        assert result["estimate"]["to_do"]["images"] == images
        assert len(result["missing"]) == (SHARDS if more else 0)


def test_where_only_reconstructions_are_missing_no_step_is_timed(
    world: World, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[bool]] = []

    def recorded(_networks: object, _plan: object, datasets: Any) -> None:
        made.append([dataset.perturbed for dataset in datasets])

    monkeypatch.setattr(estimating, "make_shard", recorded)
    found = world.make(copied, *DRY, "--json", "--reconstructed")
    assert found.code == 0, found.err
    assert made[0] == [False]
    # Of all of ImageNet's data sets the cost would be another one.
    assert found.result["estimate"]["imagenet"] is None
    assert "ImageNet" not in world.make(copied, *DRY, "--reconstructed").out


@pytest.mark.parametrize(
    ("shards", "processes", "most"), [([5, 5, 5, 2], 1, 17), ([5, 5, 5, 2], 2, 10), ([5, 5, 5, 2], 8, 5), ([], 2, 0)]
)
def test_a_process_makes_whole_shards(shards: list[int], processes: int, most: int) -> None:
    assert estimating._most_images(shards, processes) == most


def test_where_a_batch_takes_long_it_is_the_only_one(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of sleep stands for the minutes that a batch takes on a CPU."""
    made: list[int] = []

    def slow(_networks: object, plan: Any, _datasets: object) -> None:
        made.append(len(plan.batches))
        time.sleep(1)

    monkeypatch.setattr(estimating, "make_shard", slow)
    monkeypatch.setattr(estimating, "_LONG_ENOUGH", 0.9)
    found = estimating.estimate(job, missing_shards(job.datasets))
    assert made == [1]
    assert 1 <= found.seconds < 2
    assert found.to_do.hours == pytest.approx(12 * found.seconds / 3600)


def test_a_batch_that_cannot_be_made_is_refused(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise WorkError("the image cat.JPEG is broken.")

    monkeypatch.setattr(estimating, "make_shard", fail)
    said = refused(*world.words(tmp_path / "out", *DRY))
    assert "No batch could be timed: the image cat.JPEG is broken." in said


def test_networks_that_cannot_be_compiled_are_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import FailOnRecompileLimitHit

    def fail(*_: object) -> None:
        raise FailOnRecompileLimitHit("too many variants\nand more")

    monkeypatch.setattr(estimating, "make_shard", fail)
    said = refused(*world.words(tmp_path / "out", *DRY))
    assert "A network cannot be compiled (too many variants); leave out --compile." in said


def test_memory_that_is_full_is_refused_with_what_helps(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(estimating, "make_shard", fail)
    assert "too little memory (out of memory); give a smaller --micro-batch." in refused(
        *world.words(tmp_path / "out", *DRY)
    )


def test_an_estimate_without_a_dry_run_or_of_other_machines_is_refused(world: World, tmp_path: Path) -> None:
    assert "give --dry-run as well" in refused(*world.words(tmp_path / "out", "--estimate"))
    assert "not a scheduler's workers" in refused(*world.words(tmp_path / "out", *DRY, scheduler="tcp://127.0.0.1:1"))
