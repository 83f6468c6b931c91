"""Models by their SPEC."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import inception_v3, resnet18, shufflenet_v2_x0_5

from basics.errors import UserError
from networks.checkpoints import weights_checksum
from networks.classifiers import PUBLISHED_VIEW
from networks.specs import label_of_spec, load_model, split_spec
from sources.decode import View, pixels_of
from tests.support import close, seeded, tiny_classifier

TIMM_DATA: Any = timm.data


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_checkpoint_in_any_wrapping(tmp_path: Path, image: torch.Tensor, wrapped: bool) -> None:
    with seeded(0):
        theirs = resnet18(num_classes=7).eval()
    state = theirs.state_dict()
    if wrapped:
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "x")
    else:
        save_file(state, tmp_path / "x")
    found = load_model(f"resnet18={tmp_path / 'x'}")
    assert (found.name, found.classes, found.weights, found.view) == ("resnet18", 7, "x", PUBLISHED_VIEW)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        assert close(found.module(image), theirs((image - mean[:, None, None]) / std[:, None, None]))


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_lists_what(tmp_path: Path) -> None:
    state = resnet18(num_classes=7).state_dict()
    state["stranger"] = state.pop("layer1.0.conv1.weight")
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"missing: layer1\.0\.conv1\.weight; unknown: stranger"):
        load_model(f"resnet18={tmp_path / 'x.pth'}")


@pytest.mark.slow
def test_a_run_folder_and_its_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = tiny_classifier(tmp_path / "run/classifier.safetensors", 5, "resnet34")
    for spec in (tmp_path / "run", path):
        found = load_model(str(spec))
        assert (found.name, found.classes, found.width) == ("resnet34", 5, 1 / 16)


@pytest.mark.slow
def test_a_timm_model_from_a_seed_has_timms_data_config() -> None:
    found = load_model("timm:vit_tiny_patch16_224=seed:3")
    again = load_model("timm:vit_tiny_patch16_224=seed:3")
    assert found.checksum == again.checksum
    assert load_model("timm:vit_tiny_patch16_224=seed:4").checksum != found.checksum
    assert found.view == View(crop=224, resize=248, interpolation="bicubic")  # 224 / 0.9
    grey = torch.full((1, 3, 1, 1), 0.5)
    # This one is trained with mean and standard deviation 0.5.
    assert float(found.module[0](grey).abs().max()) < 1e-6  # type: ignore[index]


@pytest.mark.slow
def test_a_timm_checkpoint_with_other_classes(tmp_path: Path, image: torch.Tensor) -> None:
    with seeded(0):
        theirs = timm.create_model("resnet10t", num_classes=6).eval()
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    found = load_model(f"timm:resnet10t={tmp_path / 'x.pth'}")
    assert found.classes == 6
    with torch.no_grad():
        assert close(found.module[1](image), theirs(image))  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "origin"),
    [
        (lambda last, averaged: {"state_dict": last, "state_dict_ema": averaged}, "x.pth (state_dict_ema)"),
        (lambda _, state: {f"_orig_mod.{name}": value for name, value in state.items()}, "x.pth"),
        (lambda _, state: {"state_dict": {f"model.{name}": value for name, value in state.items()}}, "x.pth"),
    ],
)
@pytest.mark.parametrize("spec", ["timm:resnet10t", "shufflenet_v2_x0_5"])
def test_a_checkpoint_of_a_training(tmp_path: Path, spec: str, content: Any, origin: str) -> None:
    def state(seed: int) -> dict[str, torch.Tensor]:
        with seeded(seed):
            if spec.startswith("timm:"):
                return dict(timm.create_model(spec.removeprefix("timm:"), num_classes=3).state_dict())
            return dict(shufflenet_v2_x0_5(num_classes=3).state_dict())

    torch.save(content(state(0), state(1)), tmp_path / "x.pth")
    found = load_model(f"{spec}={tmp_path / 'x.pth'}")
    assert found.checksum == weights_checksum(state(1))
    assert (found.weights, found.classes) == (origin, 3)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("resnet19", "no classifier 'resnet19'"),
        ("resnet18=", "names no weights"),
        ("resnet18=absent.pth", "no weights file absent.pth"),
        ("resnet18=seed:x", "seed:N"),
        ("timm:resnet1000", "no timm model 'resnet1000'"),
        ("timm:resnet10t=absent.pth", "no weights file absent.pth"),
        ("timm:resnet10t.bogus", r"timm cannot build the model resnet10t.bogus \(Invalid pretrained tag \(bogus\)"),
        ("timm:resnet10t.bogus=seed:1", r"cannot build .* \(Invalid pretrained tag \(bogus\)"),
        ("timm:resnet10t.bogus=absent.pth", r"cannot build .* \(Invalid pretrained tag \(bogus\)"),
        ("some/where", "no file or folder some/where"),
    ],
)
def test_what_is_not_there_is_refused(spec: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_model(spec)


def test_a_folder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither classifier\.safetensors nor main"):
        load_model(str(tmp_path))


def test_pretrained_weights_without_network_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host\nand much more")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(UserError, match=r"cannot be had \(no route to host\); give a file, timm:resnet10t=FILE"):
        load_model("timm:resnet10t")


@pytest.mark.parametrize("error", [EOFError("Ran out of input"), KeyError("state"), ValueError("")])
def test_whatever_timm_raises_for_pretrained_weights_is_said(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("timm.models._builder.load_pretrained", failing)
    with pytest.raises(UserError, match=r"cannot be had \(.+\); give a file, timm:resnet10t=FILE"):
        load_model("timm:resnet10t")


@pytest.mark.slow
def test_a_spec_is_split_into_name_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18").mkdir()
    weights = tiny_classifier(tmp_path / "resnet18/classifier.safetensors", 3)
    assert split_spec("resnet18") == ("resnet18", "published")  # the name, as before there was such a folder
    assert split_spec("./resnet18") == (None, str(weights))
    assert split_spec("vgg19=seed:3") == ("vgg19", "seed:3")
    assert split_spec("timm:resnet10t") == ("timm:resnet10t", "published")
    assert split_spec("timm:resnet10t=x.pth") == ("timm:resnet10t", str(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nofile.pth", "no file or folder nofile.pth; check the path"),
        ("runs/none", "no file or folder runs/none; check the path"),
        ("", "names no network"),
        ("vgg19=", "names no weights"),
    ],
)
def test_a_spec_that_cannot_be_split_is_refused(spec: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        split_spec(spec)


def test_names_in_tables(tmp_path: Path) -> None:
    path = tiny_classifier(tmp_path / "c.safetensors", 5)
    assert label_of_spec("resnet50") == "resnet50"
    assert label_of_spec("timm:convnext_tiny") == "timm:convnext_tiny"
    assert label_of_spec("resnet50=/a/b/mine.pth") == "resnet50=mine.pth"
    assert label_of_spec("resnet50=seed:1") == "resnet50=seed:1"
    assert label_of_spec(str(tmp_path)) == tmp_path.name
    assert label_of_spec(str(path)) == "c"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("resnet50", PUBLISHED_VIEW),
        ("efficientnet_b4", View(crop=380, resize=384, interpolation="bicubic")),
        ("inception_v3", View(crop=299, resize=342)),
        ("swin_v2_t", View(crop=256, resize=260, interpolation="bicubic")),
    ],
)
def test_torchvisions_networks_see_images_at_their_own_size(name: str, view: View) -> None:
    assert load_model(f"{name}=seed:0").view == view


@pytest.mark.slow
def test_inception_from_a_file_prepares_colours_as_torchvision_does_for_its_weights(tmp_path: Path) -> None:
    with seeded(0):
        theirs = inception_v3(num_classes=4, init_weights=False, transform_input=True).eval()
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    found = load_model(f"inception_v3={tmp_path / 'x.pth'}")
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        assert close(found.module(image), theirs((image - mean[:, None, None]) / std[:, None, None]), relative=1e-4)


@pytest.mark.slow
def test_squashing_is_timms() -> None:
    name = "coat_lite_medium_384"
    found = load_model(f"timm:{name}=seed:0")
    assert found.view.squash
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8))
    config = TIMM_DATA.resolve_data_config({}, model=timm.create_model(name))
    expected = TIMM_DATA.create_transform(**config, is_training=False)(image)
    ours = found.module[0](pixels_of(image, found.view, "x")[None].float() / 255)  # type: ignore[index]
    assert float((ours[0] - expected).abs().max()) < 1e-5


def test_crop_modes_that_are_not_done_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = TIMM_DATA.resolve_model_data_config
    monkeypatch.setattr(TIMM_DATA, "resolve_model_data_config", lambda model: {**real(model), "crop_mode": "border"})
    with pytest.raises(UserError, match="in crop mode 'border'"):
        load_model("timm:resnet10t=seed:0")


@pytest.mark.slow
def test_prefixes_in_safetensors_are_taken_off(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in resnet18(num_classes=3).state_dict().items()}
    save_file(state, tmp_path / "x.safetensors")
    assert load_model(f"resnet18={tmp_path / 'x.safetensors'}").classes == 3


def test_paths_may_have_an_equals_sign(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    path = tiny_classifier(folder / "classifier.safetensors", 5)
    for spec in (str(folder), str(path), f"resnet18={path}"):
        assert load_model(spec).classes == 5
    assert [label_of_spec(str(folder)), label_of_spec(str(path))] == ["lr=0.1", "classifier"]
