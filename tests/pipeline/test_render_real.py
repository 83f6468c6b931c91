"""The ledger of a run on real images renders to the same bytes."""

import shutil
from pathlib import Path

import pytest

from tests.support import advbn_gen, folder_bytes, tiny_autoencoder, tiny_classifier


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["vgg", "resnet"])
def test_the_ledger_of_real_images_renders_to_the_same_bytes(encoder: str, shared_data: Path, tmp_path: Path) -> None:
    tar = shared_data / "imagenet-sample-500.tar"
    autoencoder = tiny_autoencoder(tmp_path / "autoencoder.safetensors", encoder)
    made = advbn_gen(
        "imagenet-advbn", "--encoder", encoder, "--source", tar, "--autoencoder", autoencoder,
        "--classifier-weights", tiny_classifier(tmp_path / "classifier.safetensors", 1000), "--limit", 70,
        "--image-size", 64, "--steps", 3, "--batches-per-shard", 2, "--threads", 1, "--device", "cpu",
        "--out", tmp_path / "made",
    )  # fmt: skip
    assert made.code == 0, made.err
    for name in ("perturbations.h5", "manifest.json"):
        shutil.copy(tmp_path / "made" / name, tmp_path)
    again = advbn_gen(
        "render", tmp_path / "perturbations.h5", "--source", tar, "--autoencoder", autoencoder,
        "--out", tmp_path / "again", "--json",
    )  # fmt: skip
    assert again.code == 0, again.err
    assert (again.result["images"], again.result["shards"], again.result["bytes_equal"]) == (70, 2, True)
    before, after = folder_bytes(tmp_path / "made"), folder_bytes(tmp_path / "again")
    assert {name for name in before if before[name] != after[name]} == {"manifest.json"}
