"""Classifiers by name, file and seed."""

import re
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import densenet121, mobilenet_v3_small, resnet18
from torchvision.transforms import functional

from basics.errors import UserError
from networks import classifiers
from networks.classifiers import build_network, load_classifier, save_classifier
from networks.normalise import IMAGENET_MEAN, IMAGENET_STD
from sources.base import numbered_classes
from tests.support import close, seeded, tiny_classifier


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_a_seed_gives_the_same_weights_every_time() -> None:
    torch.manual_seed(5)
    first = load_classifier("resnet18", "seed:3", 10)
    torch.manual_seed(6)
    expected = torch.rand(1)
    torch.manual_seed(6)
    again = load_classifier("resnet18", "seed:3", 10)
    assert torch.equal(torch.rand(1), expected), "the global generator was moved"
    assert first.checksum == again.checksum
    assert load_classifier("resnet18", "seed:4", 10).checksum != first.checksum


@pytest.mark.slow
def test_a_plain_torchvision_state_dict_is_enough(tmp_path: Path, image: torch.Tensor) -> None:
    with seeded(0):
        theirs = resnet18(weights=None, num_classes=9).eval()
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    found = load_classifier("resnet18", str(tmp_path / "x.pth"), 9)
    with torch.no_grad():
        expected = theirs(functional.normalize(image, IMAGENET_MEAN, IMAGENET_STD))
        assert close(found.module(image), expected, relative=1e-5)
    assert not found.module.training
    assert not any(weight.requires_grad for weight in found.module.parameters())
    assert found.summary()["weights"] == "x.pth"


@pytest.mark.slow
def test_published_densenets_under_their_old_names(tmp_path: Path) -> None:
    with seeded(0):
        theirs = densenet121(weights=None, num_classes=4)
    state = theirs.state_dict()
    old = {re.sub(r"(denselayer\d+)\.(norm|conv)([12])\.", r"\1.\2.\3.", name): state[name] for name in state}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "x.pth")
    found = load_classifier("densenet121", str(tmp_path / "x.pth"), 4).module[1].state_dict()  # type: ignore[index]
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.slow
def test_our_own_files_tell_name_and_width(tmp_path: Path, image: torch.Tensor) -> None:
    found = load_classifier(None, str(tiny_classifier(tmp_path / "c.safetensors", 5, "resnet34")), 5)
    assert (found.name, found.width, found.classes) == ("resnet34", 1 / 16, 5)
    assert found.module(image).shape == (2, 5)


@pytest.mark.slow
def test_saving_and_loading_keeps_the_weights(tmp_path: Path) -> None:
    network = build_network("resnet18", 6, 1 / 16)
    save_classifier(tmp_path / "c.safetensors", "resnet18", network, numbered_classes(6), 1 / 16, note="x")
    found = load_classifier("resnet18", str(tmp_path / "c.safetensors"), 6)
    state = found.module[1].state_dict()  # type: ignore[index]
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_class_count_that_does_not_fit_is_refused(tmp_path: Path, suffix: str) -> None:
    path = (tmp_path / "x").with_suffix(suffix)
    (torch.save if suffix == ".pth" else save_file)(mobilenet_v3_small(num_classes=12).state_dict(), path)
    with pytest.raises(UserError, match="has 12 classes but the data set's labels need 1000"):
        load_classifier("mobilenet_v3_small", str(path), 1000)
    assert load_classifier("mobilenet_v3_small", str(path), 12).classes == 12


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_output_layer_is_found_in_networks_with_other_matrices(tmp_path: Path, suffix: str) -> None:
    """ConvNeXt's blocks hold matrices, and in a safetensors file its output layer comes first."""
    state = build_network("convnext_tiny", 11).state_dict()
    path = (tmp_path / "x").with_suffix(suffix)
    (torch.save if suffix == ".pth" else save_file)(dict(state), path)
    assert load_classifier("convnext_tiny", str(path), 11).classes == 11


def test_unknown_names_are_refused() -> None:
    for name in ("resnet19", "", "fasterrcnn_resnet50_fpn"):
        with pytest.raises(UserError, match=r"classifier|which network"):
            load_classifier(name, "seed:0", 10)


@pytest.mark.slow
def test_name_and_weights_that_contradict_are_refused(tmp_path: Path) -> None:
    path = tiny_classifier(tmp_path / "c.safetensors", 5)
    with pytest.raises(UserError, match="are of a resnet18, not of a resnet50"):
        load_classifier("resnet50", str(path), 5)


def test_weights_that_tell_nothing_need_a_name(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(5, 2)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"give --classifier NAME=.*x\.pth"):
        load_classifier(None, str(tmp_path / "x.pth"), 5)


@pytest.mark.parametrize("error", [URLError("no route to host"), EOFError("cut short"), IncompleteRead(b"cut short")])
def test_published_weights_that_cannot_be_had_are_said(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", failing)
    with pytest.raises(UserError, match=rf"{re.escape(str(error))}.*; give a file with --init resnet18=FILE"):
        load_classifier("resnet18", "published", 1000, option="--init")
    assert classifiers.PUBLISHED == "published"
