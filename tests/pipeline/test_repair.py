"""Every kind of damage is found and repaired to the original bytes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.damage import (
    SHARD,
    edit,
    flip,
    forge,
    halve,
    other_image,
    renamed,
    swapped_everywhere,
    swapped_labels,
    without,
    without_a_sample,
)  # fmt: skip
from tests.pipeline.world import NAME, World, forge_json, tar_of
from tests.support import advbn_gen, folder_bytes, image_folder, refused

PART = "000004.h5: the shard's part of the ledger is missing or damaged"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped byte early in a tar": (lambda folder: flip(tar_of(folder, SHARD), 0.1), "000004.tar: the checksum"),
    "a flipped byte late in a tar": (lambda folder: flip(tar_of(folder, SHARD), 0.999), "000004.tar: the checksum"),
    "a missing tar": (lambda folder: tar_of(folder, SHARD).unlink(), "000004.tar: the shard is missing"),
    "half a tar": (lambda folder: halve(tar_of(folder, SHARD)), "000004.tar: the checksum"),
    "an empty tar": (lambda folder: tar_of(folder, SHARD).write_bytes(b""), "000004.tar: "),
    "a swapped label": (lambda folder: edit(folder, swapped_labels), "its label or key differs"),
    "a missing member": (lambda folder: edit(folder, without(".png")), "has no png"),
    "a missing sample": (lambda folder: edit(folder, without_a_sample), "3 samples instead of 4"),
    "a truncated ledger": (lambda folder: halve(folder / "perturbations.h5"), "perturbations.h5 is damaged"),
    "a flipped byte in the ledger": (
        lambda folder: flip(folder / "perturbations.h5", 0.7),
        "perturbations.h5 is damaged",
    ),
    "a changed card": (
        lambda folder: (folder / "README.md").write_text("x"), "README.md is missing or damaged"
    ),
    "a missing index for wids": (lambda folder: (folder / "wids.json").unlink(), "wids.json is missing or damaged"),
    "half of timm's file": (lambda folder: halve(folder / "_info.json"), "_info.json is missing or damaged"),
    "a missing ledger": (lambda folder: (folder / "perturbations.h5").unlink(), "perturbations.h5 is missing"),
    "a truncated ledger part": (lambda folder: halve(folder / "stats/000004.h5"), PART),
    "a missing ledger part": (lambda folder: (folder / "stats/000004.h5").unlink(), PART),
    "another shard's ledger part": (
        lambda folder: shutil.copyfile(folder / "stats/000005.h5", folder / "stats/000004.h5"),
        PART,
    ),
    "a missing mark": (lambda folder: (folder / "stats/000004.json").unlink(), "the mark of shard 4 is missing"),
    "half a mark": (lambda folder: halve(folder / "stats/000004.json"), "the mark of shard 4 is missing or damaged"),
    "another run's mark": (
        lambda folder: forge_json(folder / "stats/000004.json", fingerprint="0" * 64),
        "the mark of shard 4 does not agree",
    ),
}  # fmt: skip

FORGERIES: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "a swapped label": (swapped_labels, "its label or key differs"),
    "a label swapped in .json too": (swapped_everywhere, "but the ledger has"),
    "a missing label": (without(".cls"), "has no cls"),
    "missing metadata": (without(".json"), "has no json"),
    "a missing image": (without(".png"), "has no png"),
    "a missing sample": (without_a_sample, "3 samples instead of 4"),
    "half an image": (other_image, "cannot be read"),
    "another key": (renamed, "its label or key differs"),
}


@pytest.fixture(scope="module")
def world(world: World) -> World:
    return world.half()


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 6 shards; tests must not change it."""
    out = tmp_path_factory.mktemp("finished") / NAME
    done = world.make(out)
    assert done.code == 0, done.err
    return out


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_mended_to_the_original_bytes(copied: Path, finished: Path, damage: str) -> None:
    damage_it, said = DAMAGES[damage]
    damage_it(copied)
    found = advbn_gen("verify", copied, "--json")
    assert found.code == 1
    assert "Traceback" not in found.err
    assert found.result["ok"] is False
    assert any(said in text for text in found.result["problems"]), found.result
    mended = advbn_gen("verify", copied, "--repair", "--json")
    assert mended.code == 0, mended.err
    assert mended.result["ok"] is True
    assert mended.result["repaired"] == found.result["problems"]
    assert folder_bytes(copied) == folder_bytes(finished)


@pytest.mark.slow
@pytest.mark.parametrize("forgery", FORGERIES)
def test_content_is_checked_even_if_every_checksum_was_forged(
    world: World, copied: Path, finished: Path, forgery: str
) -> None:
    change, said = FORGERIES[forgery]
    edit(copied, change)
    forge(copied)
    found = advbn_gen("verify", copied, "--json")
    assert found.code == 1
    assert any(said in text for text in found.result["problems"]), found.result
    # The manifest is what bytes are compared with: where it was forged, only a new start is believed.
    mended = advbn_gen("verify", copied, "--repair")
    assert mended.code == 1
    assert "not the bytes recorded before" in mended.err
    assert tar_of(copied, SHARD).read_bytes() == tar_of(finished, SHARD).read_bytes()
    assert advbn_gen("verify", copied).code == 1
    assert world.make(copied, "--overwrite").code == 0
    assert folder_bytes(copied) == folder_bytes(finished)


@pytest.mark.slow
def test_all_damages_at_once_are_listed_and_mended(copied: Path, finished: Path) -> None:
    flip(tar_of(copied, 0), 0.4)
    tar_of(copied, 1).unlink()
    halve(copied / "stats/000002.h5")
    (copied / "stats/000003.json").unlink()
    halve(copied / "perturbations.h5")
    problems = advbn_gen("verify", copied, "--json").result["problems"]
    assert all(any(f"{shard:06d}" in text for text in problems) for shard in range(4))
    assert any("perturbations.h5" in text for text in problems)
    assert not any(f"{shard:06d}" in text for text in problems for shard in range(4, 6))
    assert advbn_gen("verify", copied, "--repair").code == 0
    assert folder_bytes(copied) == folder_bytes(finished)


@pytest.mark.slow
def test_an_unfinished_run_is_finished_by_repair(copied: Path, finished: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    tar_of(copied, 5).unlink()
    (copied / "stats/000005.json").unlink()
    for name in ("perturbations.h5", "_info.json", "wids.json", "README.md"):
        (copied / name).unlink()
    forge_json(copied / "manifest.json", complete=False, shards=manifest["shards"][:5], ledger_sha256="")
    found = advbn_gen("verify", copied, "--json")
    assert found.code == 1
    assert any("not finished" in text for text in found.result["problems"])
    assert advbn_gen("verify", copied, "--repair").code == 0
    assert folder_bytes(copied) == folder_bytes(finished)


@pytest.mark.slow
def test_reconstructions_are_mended_too(world: World, tmp_path: Path) -> None:
    assert world.make(tmp_path / "advbn", "--reconstructed").code == 0
    folder = tmp_path / "reconstructed"
    before = folder_bytes(folder)
    flip(tar_of(folder, 2, "imagenet-reconstructed-vgg"), 0.5)
    assert advbn_gen("verify", folder).code == 1
    assert advbn_gen("verify", folder, "--repair").code == 0
    assert folder_bytes(folder) == before


@pytest.mark.parametrize("name", ["shards", "lost", "format_version", "identity", "config"])
def test_a_manifest_without_one_of_its_entries_is_damaged(copied: Path, name: str) -> None:
    path = copied / "manifest.json"
    values = json.loads(path.read_text())
    del values[name]
    path.write_text(json.dumps(values))
    for more in ([], ["--repair"]):
        assert "is damaged" in refused("verify", copied, *more)


@pytest.mark.slow
def test_repair_beside_a_running_job_touches_nothing(copied: Path) -> None:
    from basics.ownership import lock_folder

    tar_of(copied, 3).unlink()
    before = folder_bytes(copied)
    with lock_folder(copied):
        assert "Another run is writing" in refused("verify", copied, "--repair")
    assert folder_bytes(copied) == before


@pytest.mark.slow
def test_a_failed_repair_keeps_the_true_source(copied: Path, finished: Path) -> None:
    other = image_folder(copied.parent / "other", per_class=17, side=44)
    tar_of(copied, 3).unlink()
    failed = advbn_gen("verify", copied, "--repair", "--source", other)
    assert failed.code == 1
    assert "not the bytes recorded before" in failed.err
    assert advbn_gen("verify", copied, "--repair").code == 0
    assert folder_bytes(copied) == folder_bytes(finished)


@pytest.mark.slow
def test_repair_needs_the_source(world: World, tmp_path: Path) -> None:
    source = Path(shutil.copytree(world.source, tmp_path / "source"))
    assert world.make(tmp_path / "out", source=source, limit=8).code == 0
    tar_of(tmp_path / "out", 0).unlink()
    shutil.rmtree(source)
    assert str(source) in refused("verify", tmp_path / "out", "--repair")


@pytest.mark.slow
def test_repair_takes_the_new_address_of_what_has_moved(world: World, tmp_path: Path) -> None:
    old = tmp_path / "old"
    source = Path(shutil.copytree(world.source, old / "source"))
    autoencoder = Path(shutil.copy(world.autoencoder, old / "a.safetensors"))
    classifier = Path(shutil.copy(world.classifier, old / "c.safetensors"))
    given = {"source": source, "autoencoder": autoencoder, "classifier_weights": classifier}
    assert world.make(tmp_path / "out", limit=8, **given).code == 0
    before = folder_bytes(tmp_path / "out")
    tar_of(tmp_path / "out", 0).unlink()
    new = old.rename(tmp_path / "new")
    addresses: list[object] = ["--source", new / "source", "--autoencoder", new / "a.safetensors"]
    addresses += ["--classifier-weights", new / "c.safetensors"]
    assert "give --repair as well" in refused("verify", tmp_path / "out", *addresses)
    assert advbn_gen("verify", tmp_path / "out", "--repair", *addresses).code == 0
    after = folder_bytes(tmp_path / "out")
    assert {name: after[name] for name in after if name != "manifest.json"} == {
        name: before[name] for name in before if name != "manifest.json"
    }
    assert str(new) in after["manifest.json"].decode()
    assert str(old) not in after["manifest.json"].decode()


@pytest.mark.slow
def test_repair_refuses_other_images_at_the_new_address(copied: Path) -> None:
    flip(tar_of(copied, 1), 0.5)
    other = image_folder(copied.parent / "other", per_class=3)
    assert "images.records_sha256" in refused("verify", copied, "--repair", "--source", other)


@pytest.mark.slow
def test_a_stray_tar_is_reported_and_left_alone(copied: Path) -> None:
    stray = Path(shutil.copy(tar_of(copied, 0), tar_of(copied, 77)))
    found = advbn_gen("verify", copied, "--repair", "--json")
    assert found.code == 1
    assert any("left alone; move it away" in text for text in found.result["problems"])
    assert stray.exists()


@pytest.mark.slow
def test_repair_refuses_other_weights(world: World, tmp_path: Path) -> None:
    from tests.support import tiny_classifier

    classifier = Path(shutil.copy(world.classifier, tmp_path / "c.safetensors"))
    assert world.make(tmp_path / "out", classifier_weights=classifier, limit=8).code == 0
    before = folder_bytes(tmp_path / "out")
    tiny_classifier(classifier, 1000, seed=77)
    flip(tar_of(tmp_path / "out", 1), 0.5)
    # This process has the old file loaded.
    assert "classifier.sha256" in refused("verify", tmp_path / "out", "--repair")
    assert folder_bytes(tmp_path / "out").keys() == before.keys()
