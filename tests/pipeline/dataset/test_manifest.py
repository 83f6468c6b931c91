"""The files around the shards, by plain json, yaml and hashlib."""

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import webdataset as wds
import yaml  # type: ignore[import-untyped]

from basics.errors import UserError
from basics.files import sealed
from pipeline.dataset.manifest import read_manifest
from tests.pipeline.world import BATCH, IMAGES, NAME, SHARDS, World, sample_metadata, tar_of


def loaded(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_manifest_has_counts_and_checksums(finished: Path) -> None:
    values = loaded(finished / "manifest.json")
    assert values["complete"] is True
    assert (values["name"], values["samples"], values["batches"]) == (NAME, IMAGES, SHARDS)
    assert [entry["shard"] for entry in values["shards"]] == list(range(SHARDS))
    for entry in values["shards"]:
        content = (finished / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert (entry["bytes"], entry["samples"]) == (len(content), BATCH)
    assert values["ledger_sha256"] == hashlib.sha256((finished / "perturbations.h5").read_bytes()).hexdigest()


def test_the_manifest_records_settings_and_source(finished: Path, world: World) -> None:
    values = loaded(finished / "manifest.json")
    assert values["source"] == str(world.source)
    assert values["config"]["attack"] == {"eps": 1.1, "steps": 2, "step_size": 0.2}
    assert values["config"]["image_size"] == 16
    identity = values["identity"]
    assert identity["arithmetic"]["threads"] == 1
    assert identity["images"]["count"] == IMAGES
    assert identity["classifier"]["name"] == "resnet18"
    assert {"torch", "pillow", "webdataset"} <= identity["software"].keys()
    assert (len(values["classes"]["names"]), values["classes"]["imagenet"]) == (1000, True)


def test_accuracies_are_those_of_the_samples(finished: Path) -> None:
    samples = sample_metadata(finished)
    top1 = loaded(finished / "manifest.json")["top1"]
    for name in ("clean", "reconstructed", "adversarial"):
        correct = sum(sample[f"{name}_prediction"] == sample["label"] for sample in samples)
        assert top1[name] == correct / IMAGES
    assert len(set(top1.values())) == 3, "equal ones could be taken for each other unnoticed"
    assert all(0 < share < 1 for share in top1.values())


def test_timm_finds_what_it_wants(finished: Path) -> None:
    split = loaded(finished / "_info.json")["splits"]["validation"]
    assert split["num_samples"] == IMAGES
    assert split["filenames"] == [tar_of(finished, shard).name for shard in range(SHARDS)]
    assert split["shard_lengths"] == [BATCH] * SHARDS
    assert split["name"] == f"{NAME}-val"


def test_wids_finds_what_it_wants(finished: Path) -> None:
    index = loaded(finished / "wids.json")
    assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
    assert len(index["shardlist"]) == SHARDS
    for shard, entry in enumerate(index["shardlist"]):
        content = tar_of(finished, shard).read_bytes()
        assert entry == {
            "url": tar_of(finished, shard).name,
            "md5sum": hashlib.md5(content).hexdigest(),
            "nsamples": BATCH,
            "filesize": len(content),
        }


def test_the_card_names_the_data_files_and_its_snippet_reads_them(finished: Path) -> None:
    card = (finished / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    (config,) = yaml.safe_load(front)["configs"]
    (files,) = config["data_files"]
    assert files["split"] == "validation"
    assert sorted(finished.glob(files["path"])) == sorted(finished.glob("*.tar"))
    assert f"{IMAGES} images" in text
    pattern = text.split('WebDataset("')[1].split('"')[0]
    data = wds.WebDataset(str(finished / pattern), shardshuffle=False).decode("pil").to_tuple("png", "cls")
    assert len(list(data)) == IMAGES


def test_every_sample_has_the_same_names_and_types_without_nulls(finished: Path) -> None:
    samples = sample_metadata(finished)
    shapes = {tuple((name, type(value)) for name, value in sorted(sample.items())) for sample in samples}
    assert len(samples) == IMAGES
    assert len(shapes) == 1
    assert dict(next(iter(shapes))).keys() == {
        "key", "label", "wnid", "source", "source_sha256", "index", "batch", "position", "batch_size",
        "clean_prediction", "reconstructed_prediction", "adversarial_prediction", "losses",
    }  # fmt: skip


def test_samples_record_their_position_and_their_original(finished: Path, world: World) -> None:
    for index, sample in enumerate(sample_metadata(finished)):
        assert (sample["index"], sample["batch"], sample["position"]) == (index, index // BATCH, index % BATCH)
        original = (world.source / sample["source"]).read_bytes()
        assert sample["source_sha256"] == hashlib.sha256(original).hexdigest()
        assert sample["source"].startswith(sample["wnid"])


def test_the_ledger_agrees_with_the_samples(finished: Path) -> None:
    samples = sample_metadata(finished)
    with h5py.File(finished / "perturbations.h5") as ledger:
        assert [key.decode() for key in ledger["samples/key"]] == [sample["key"] for sample in samples]
        assert ledger["samples/label"][()].tolist() == [sample["label"] for sample in samples]
        losses = np.array([sample["losses"] for sample in samples]).reshape(SHARDS, BATCH, -1).mean(1)
        np.testing.assert_allclose(ledger["loss"][()], losses, atol=2e-6)
        assert ledger["delta_mean"].shape == (SHARDS, 512 // 16)
        # Two steps of 0.2 from 1; a sign may be 0 where nothing depends on a channel.
        away = np.abs(ledger["delta_mean"][()] - 1)
        assert away.max() == pytest.approx(0.4)


@pytest.mark.slow
def test_an_unfinished_data_set_says_so(world: World, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    from tests.support import image_folder

    image_folder(source / "images", per_class=4)
    broken = source / "images/n02102040/n02102040_1.JPEG"
    broken.write_bytes(b"no image")
    out = tmp_path / "out"
    assert world.make(out, source=source / "images").code == 1
    manifest = read_manifest(out)
    assert not manifest.complete
    assert [entry["shard"] for entry in manifest.shards] == [0, 2]
    assert not (out / "_info.json").exists()
    assert not (out / "perturbations.h5").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no manifest.json"),
        ("{", "is damaged"),
        ("[]", "not a manifest of this program"),
        ('{"format": "another"}', "not a manifest of this program"),
        (json.dumps(sealed({"format": "advbn-gen data set", "name": "../../x"})), "which is not safe"),
        (
            json.dumps(sealed({"format": "advbn-gen data set", "name": "x", "config": {"split": "../val"}})),
            "the split '../val', which is not safe",
        ),
        (json.dumps(sealed({"format": "advbn-gen data set", "name": "x"})), "the split None, which is not safe"),
        ('{"format": "advbn-gen data set", "format_version": 99}', "newer"),
        ('{"format": "advbn-gen data set", "format_version": 1}', "is damaged"),
    ],
)
def test_other_manifests_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=said):
        read_manifest(tmp_path)
