"""`train-classifier` through the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torchvision.models import resnet18

from networks.specs import load_model
from tests.support import advbn_gen, image_folder, refused


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "source", per_class=6, classes=("a", "b", "c"))


def words(images: Path, out: Path, **changed: object) -> list[object]:
    options: dict[str, object] = {
        "arch": "resnet18", "source": images, "val": images, "image-size": 32, "batch-size": 6, "epochs": 2,
        "device": "cpu", "out": out,
    }  # fmt: skip
    options |= {name.replace("_", "-"): value for name, value in changed.items()}
    return ["train-classifier", *(word for name, value in options.items() for word in (f"--{name}", value)), "--json"]


@pytest.mark.slow
def test_it_leaves_a_plain_classifier_and_goes_on(source: Path, tmp_path: Path) -> None:
    done = advbn_gen(*words(source, tmp_path / "run"))
    assert done.code == 0, done.err
    plain = resnet18(num_classes=3)
    plain.load_state_dict(load_file(done.result["classifier"]))
    found = load_model(str(tmp_path / "run"))
    assert (found.classes, found.view.crop) == (3, 32)
    again = advbn_gen(*words(source, tmp_path / "longer", epochs=1))
    assert again.code == 0, again.err
    assert "holds another run" in refused(*words(source, tmp_path / "longer", epochs=2))
    mine = advbn_gen(*words(source, tmp_path / "run"))
    assert mine.result == done.result


@pytest.mark.slow
def test_a_network_of_timm_is_one_of_its_own(source: Path, tmp_path: Path) -> None:
    done = advbn_gen(*words(source, tmp_path / "run", arch="timm:test_resnet", epochs=1))
    assert done.code == 0, done.err
    plain: Any = timm.create_model("test_resnet", num_classes=3).eval()
    plain.load_state_dict(load_file(done.result["classifier"]))
    found = load_model(str(tmp_path / "run"))
    assert (found.name, found.classes, found.view.crop, found.outputs.names) == (
        "timm:test_resnet", 3, 32, ("a", "b", "c"),
    )  # fmt: skip
    mean, std = (torch.tensor(plain.default_cfg[name])[:, None, None] for name in ("mean", "std"))
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(found.module(image), plain((image - mean) / std), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_does_not_go_on_over_images_that_were_made_anew(tmp_path: Path) -> None:
    train, val = (image_folder(tmp_path / name, per_class=6, classes=("a", "b", "c")) for name in ("train", "val"))
    small = words(train, tmp_path / "run", val=val, epochs=1, width=0.25)
    assert advbn_gen(*small).code == 0
    shutil.rmtree(val)
    image_folder(val, per_class=6, classes=("a", "b", "c"), seed=1)
    assert "holds a run on other held-out images" in refused(*small)
    shutil.rmtree(train)
    image_folder(train, per_class=6, classes=("a", "b", "c"), seed=1)
    assert "holds a run on other training images" in refused(*small)
    assert advbn_gen(*small, "--overwrite").code == 0


@pytest.mark.slow
def test_it_learns(source: Path, tmp_path: Path) -> None:
    """With noise for images, learning shows in the loss on the training images."""
    done = advbn_gen(*words(source, tmp_path / "run", epochs=12, width=0.25, smallest_crop=1))
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert load_model(str(tmp_path / "run")).width == 0.25


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"arch": "resnet7"}, "no classifier 'resnet7'"),
        ({"arch": "timm:resnet7"}, "no timm model 'resnet7'"),
        ({"arch": "timm:test_resnet", "width": 0.5}, "cannot be made narrower"),
        ({"batch_size": 1}, "needs two to learn from"),
        ({"smallest_crop": 2}, "smallest crop is 2 of an image"),
        ({"limit": 3}, "fewer than one batch of 6"),
        ({"source": "/nowhere"}, "/nowhere"),
        ({"width": 0}, "width"),
        ({"arch": "vit_b_16"}, "cannot be shown images of 32 px"),
    ],
)
def test_bad_input_is_refused(source: Path, tmp_path: Path, changed: dict[str, object], said: str) -> None:
    assert said in refused(*words(source, tmp_path / "out", **changed))
    assert not (tmp_path / "out").exists()


def test_held_out_images_of_other_classes_are_refused(source: Path, tmp_path: Path) -> None:
    other = image_folder(tmp_path / "other", classes=("a", "b"))
    assert "have other classes" in refused(*words(source, tmp_path / "out", val=other))
