"""Shards -> class folders, read by torchvision."""

from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from torchvision.datasets import ImageFolder

from basics.files import digest_file
from pipeline.dataset.manifest import read_manifest
from tests.pipeline.world import IMAGES, forge_json, members, rewrite, sample_metadata, tar_of
from tests.support import WNIDS, advbn_gen, folder_bytes, refused


@pytest.fixture
def exported(finished: Path, tmp_path: Path) -> Path:
    outcome = advbn_gen("export", finished, tmp_path / "images", "--json")
    assert outcome.result == {"images": IMAGES, "out": str(tmp_path / "images")}
    return tmp_path / "images"


def test_image_folder_reads_the_same_labels_and_pixels(exported: Path, finished: Path) -> None:
    folder = ImageFolder(str(exported))
    shards = sorted(map(str, finished.glob("*.tar")))
    samples = {s["__key__"]: s for s in wds.WebDataset(shards, shardshuffle=False, empty_check=False).decode("rgb8")}
    assert folder.classes == sorted(WNIDS)
    assert len(folder) == len(samples) == IMAGES
    for (path, _), (image, label) in zip(folder.samples, folder, strict=True):
        sample = samples[Path(path).stem]
        assert folder.classes[label] == sample["json"]["wnid"]
        assert np.array_equal(np.asarray(image), sample["png"])


def test_a_wnids_folder_holds_its_imagenet_label(exported: Path, finished: Path) -> None:
    for sample in sample_metadata(finished):
        assert (exported / sample["wnid"] / f"{sample['key']}.png").is_file()
        assert sample["label"] == {"n01440764": 0, "n02102040": 217, "n03000684": 491}[sample["wnid"]]


def test_an_interrupted_export_goes_on(exported: Path, finished: Path) -> None:
    whole = folder_bytes(exported)
    lost = sorted(exported.rglob("*.png"))[::3]
    for path in lost:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in exported.rglob("*.png")}
    (lost[0].parent / (lost[0].name + ".tmp")).write_bytes(b"half")
    assert advbn_gen("export", finished, exported).code == 0
    assert folder_bytes(exported) == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_file_with_other_content_is_left_alone(exported: Path, finished: Path) -> None:
    path = sorted(exported.rglob("*.png"))[7]
    path.write_bytes(b"mine")
    said = refused("export", finished, exported)
    assert str(path) in said
    assert path.read_bytes() == b"mine"


def test_an_own_file_beside_does_not_matter(exported: Path, finished: Path) -> None:
    (exported / "notes.txt").write_text("mine")
    assert advbn_gen("export", finished, exported).code == 0


def test_a_missing_shard_is_said_before_anything_is_written(copied: Path, tmp_path: Path) -> None:
    tar_of(copied, 3).unlink()
    assert tar_of(copied, 3).name in refused("export", copied, tmp_path / "images")
    assert not (tmp_path / "images").exists()


def with_key(folder: Path, key: str) -> None:
    """Give the first sample of a data set another key, in its shard and the manifest."""
    tar = tar_of(folder, 0)
    content = members(tar)
    old = next(iter(content)).partition(".")[0]
    rewrite(tar, {name.replace(old, key): value for name, value in content.items()})
    shards = read_manifest(folder).shards
    forge_json(folder / "manifest.json", shards=[{**shards[0], "sha256": digest_file(tar)}, *shards[1:]])


def test_the_longest_key_that_a_shard_may_have_is_exported(copied: Path, tmp_path: Path) -> None:
    with_key(copied, "k" * 250)
    outcome = advbn_gen("export", copied, tmp_path / "images")
    assert outcome.code == 0, outcome.err
    exported = {path.name for path in (tmp_path / "images").rglob("*") if path.is_file()}
    assert len(exported) == IMAGES
    assert "k" * 250 + ".png" in exported


def test_a_key_too_long_for_a_file_is_said_before_anything_is_written(copied: Path, tmp_path: Path) -> None:
    with_key(copied, "k" * 252)
    said = refused("export", copied, tmp_path / "images")
    assert f"The name {'k' * 252}.png in the data set" in said
    assert "is longer than the 255 bytes" in said
    assert not (tmp_path / "images").exists()


def test_an_unfinished_data_set_is_refused(tmp_path: Path, copied: Path) -> None:
    forge_json(copied / "manifest.json", complete=False)
    assert "not finished" in refused("export", copied, tmp_path / "images")


def test_a_damaged_shard_is_no_traceback(copied: Path, tmp_path: Path) -> None:
    tar = tar_of(copied, 3)
    tar.write_bytes(tar.read_bytes()[:9000])
    outcome = advbn_gen("export", copied, tmp_path / "images")
    assert outcome.code in {1, 2}
    assert tar.name in outcome.err


def test_a_file_as_output_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused("export", finished, tmp_path / "file")
