"""`advbn-gen info` on everything that it knows."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.pipeline.world import IMAGES, SHARDS, World
from tests.support import advbn_gen, refused


def described(path: Path) -> dict[str, object]:
    outcome = advbn_gen("info", path, "--json")
    assert outcome.code == 0, outcome.err
    result: dict[str, object] = outcome.result
    return result


def test_a_data_set(finished: Path, world: World) -> None:
    description = described(finished)
    assert description["kind"] == "data set"
    assert (description["samples"], description["shards"], description["complete"]) == (IMAGES, SHARDS, True)
    assert description["bytes"] == sum(tar.stat().st_size for tar in finished.glob("*.tar"))
    assert description["source"] == str(world.source)
    assert description["identity"]["attack"]["steps"] == 2  # type: ignore[index]


def test_a_ledger_and_one_shards_part_of_it(finished: Path) -> None:
    description = described(finished / "perturbations.h5")
    assert description["kind"] == "perturbation ledger"
    assert (description["samples"], description["batches"], description["channels"]) == (IMAGES, SHARDS, 32)
    assert len(description["mean_loss_by_step"]) == 3  # type: ignore[arg-type]
    assert description["name"] == "imagenet-advbn-vgg"
    part = described(finished / "stats/000003.h5")
    assert (part["samples"], part["batches"], part["shard"]) == (4, 1, 3)


def test_an_autoencoder(world: World) -> None:
    description = described(world.autoencoder)
    assert description["kind"] == "advbn-gen autoencoder"
    assert (description["encoder"], description["width"], description["encoder_form"]) == ("vgg", 1 / 16, "torchvision")
    assert description["facts"] == {"made_by": "a test"}


def test_a_classifier(world: World) -> None:
    description = described(world.classifier)
    assert description["kind"] == "advbn-gen classifier"
    assert (description["name"], description["classes"]) == ("resnet18", 1000)


def test_people_read_one_fact_a_line(finished: Path) -> None:
    lines = advbn_gen("info", finished).out.splitlines()
    (line,) = (line for line in lines if line.startswith("samples"))
    assert line.split() == ["samples:", str(IMAGES)]


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": '"pt"', "x": "1"}])
def test_other_peoples_safetensors_are_refused_or_named(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata)
    outcome = advbn_gen("info", path, "--json")
    if outcome.code == 0:
        assert "advbn-gen" not in str(outcome.result["kind"])
    else:
        assert outcome.code == 2
        assert "was not written by this program" in outcome.err


def test_anything_else_is_refused(tmp_path: Path, finished: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    assert "cannot be described" in refused("info", tmp_path / "x.txt")
    assert "no manifest.json" in refused("info", tmp_path)
    assert "absent.safetensors" in refused("info", tmp_path / "absent.safetensors")
    assert "absent.h5" in refused("info", tmp_path / "absent.h5")
    (tmp_path / "cut.h5").write_bytes((finished / "perturbations.h5").read_bytes()[:500])
    assert "damaged" in refused("info", tmp_path / "cut.h5")


def test_a_run_folder_is_its_weights(tmp_path: Path, world: World) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/classifier.safetensors").write_bytes(world.classifier.read_bytes())
    assert described(tmp_path / "run") == described(tmp_path / "run/classifier.safetensors")
