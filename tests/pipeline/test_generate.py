"""What one pass makes: the second product, and how much memory it takes."""

import gc
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from attacks.statistics import AdvBNConfig
from pipeline.config import GenerationConfig
from pipeline.generate import generate_shard
from pipeline.job import Job, prepare, products_of
from sources.base import ImageRecord
from tests.pipeline.world import BATCH, IMAGES, SHARDS, World, sample_metadata, tar_of
from tests.processes import start_interpreter
from tests.support import advbn_gen, folder_bytes, image_folder

RECONSTRUCTED = "imagenet-reconstructed-vgg"


@pytest.fixture(scope="module")
def together(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both products of one pass."""
    parent = tmp_path_factory.mktemp("together")
    outcome = world.make(parent / "imagenet-advbn-vgg", "--reconstructed", "--json")
    assert outcome.code == 0, outcome.err
    assert set(outcome.result["folders"]) == {"imagenet-advbn-vgg", RECONSTRUCTED}
    return parent


def test_the_perturbed_product_is_the_same_with_and_without_the_other(together: Path, finished: Path) -> None:
    assert folder_bytes(together / "imagenet-advbn-vgg") == folder_bytes(finished)


@pytest.mark.slow
def test_reconstructions_are_added_without_touching_what_is_there(
    world: World, tmp_path: Path, finished: Path, together: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "imagenet-advbn-vgg"))
    before = {path: path.stat().st_mtime_ns for kind in ("*.tar", "stats/*") for path in out.glob(kind)}
    outcome = world.make(out, "--reconstructed", "--json")
    assert outcome.result["made"] == SHARDS
    assert {path: path.stat().st_mtime_ns for kind in ("*.tar", "stats/*") for path in out.glob(kind)} == before
    assert folder_bytes(out) == folder_bytes(finished)
    assert folder_bytes(tmp_path / RECONSTRUCTED) == folder_bytes(together / RECONSTRUCTED)


@pytest.mark.slow
def test_reconstructions_are_a_run_without_steps(world: World, tmp_path: Path, together: Path) -> None:
    assert world.make(tmp_path / "still", steps=0).code == 0
    for shard in range(SHARDS):
        still = tar_of(tmp_path / "still", shard).read_bytes()
        assert tar_of(together / RECONSTRUCTED, shard, RECONSTRUCTED).read_bytes() == still


def test_reconstructions_record_no_attack(together: Path) -> None:
    folder = together / RECONSTRUCTED
    for sample in sample_metadata(folder):
        assert sample["adversarial_prediction"] == sample["reconstructed_prediction"]
        assert len(sample["losses"]) == 1
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["perturbed"], manifest["name"]) == (False, RECONSTRUCTED)
    assert not (folder / "perturbations.h5").exists()
    assert not list(folder.rglob("*.h5"))
    assert advbn_gen("verify", folder).code == 0


@pytest.mark.slow
def test_one_missing_shard_of_either_product_is_made_again(world: World, tmp_path: Path, together: Path) -> None:
    copied = Path(shutil.copytree(together, tmp_path / "copied"))
    tar_of(copied / "imagenet-advbn-vgg", 3).unlink()
    tar_of(copied / RECONSTRUCTED, 5, RECONSTRUCTED).unlink()
    outcome = world.make(copied / "imagenet-advbn-vgg", "--reconstructed", "--json")
    assert outcome.result["made"] == 2
    for name in ("imagenet-advbn-vgg", RECONSTRUCTED):
        assert folder_bytes(copied / name) == folder_bytes(together / name)


def most_memory(words: list[object]) -> float:
    """Peak memory of a process in MiB."""
    process = start_interpreter(*words)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert process.returncode == 0, process.stderr.read()
    return usage.ru_maxrss / 1024


@pytest.mark.slow
def test_memory_stays_flat(world: World, tmp_path: Path) -> None:
    """A real process, one shard of nine times the batches.

    How much of what it freed a process still holds differs by 100 MiB and more from run to run; images that were kept
    would be there in each.
    """
    source = image_folder(tmp_path / "source", per_class=204)
    side, batch, few, many = 256, 8, 8, 72
    common = {"source": source, "image_size": side, "batch_size": batch, "steps": 0, "batches_per_shard": many}

    def most(batches: int, name: str) -> float:
        return most_memory(world.words(tmp_path / name, **common, limit=batches * batch))

    short = most(few, "few")
    one_image_each = (many - few) * batch * 3 * side**2 / 2**20
    assert any(most(many, f"many-{attempt}") - short < one_image_each for attempt in range(3))


@pytest.mark.slow
def test_no_image_of_a_batch_is_kept_for_long(world: World, tmp_path: Path) -> None:
    """The same by counting: 8-bit images that are alive when a batch is finished, in a shard of 12 batches."""
    classifier = str(world.classifier)
    config = GenerationConfig(
        encoder="vgg", source=str(world.source), autoencoder=str(world.autoencoder), classifier_weights=classifier,
        attack=AdvBNConfig(steps=1), batch_size=BATCH, image_size=16, limit=IMAGES, device="cpu", threads=1,
    )  # fmt: skip
    (tmp_path / "out/stats").mkdir(parents=True)
    job = prepare(config, products_of(config, tmp_path / "out", "x"))
    alive: list[int] = []

    def on_batch(_: int) -> None:
        gc.collect()
        images = (thing for thing in gc.get_objects() if type(thing) is torch.Tensor and thing.dtype is torch.uint8)
        alive.append(sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in images}.values()))

    # What was there before is not looked through after every batch: objects of thousands of modules.
    gc.freeze()
    try:
        assert generate_shard(job, 0, on_batch).done
    finally:
        gc.unfreeze()
    assert len(alive) == SHARDS
    assert max(alive[-4:]) <= max(alive[:4])


def test_a_shard_that_is_there_is_not_made_again(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that was given it, too, may have been quicker."""
    for dataset in job.datasets:
        (dataset.folder / "stats").mkdir(parents=True)
    assert generate_shard(job, 0).done
    before = folder_bytes(tmp_path / "out")

    def unreadable(_: object, record: ImageRecord) -> bytes:
        raise OSError(f"{record.name} was read")

    monkeypatch.setattr(type(job.source), "read", unreadable)
    assert "was read" in generate_shard(job, 1).reason
    assert generate_shard(job, 0).done
    assert folder_bytes(tmp_path / "out") == before
