"""Where networks are tapped: the places of the spec, and what is refused."""

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision.models import densenet121, efficientnet_b0, regnet_y_400mf, resnet18, resnet50, vgg19_bn

from abnn.stages import shapes_of, shrink_stem, stages_of, tapped
from basics.errors import UserError
from networks.classifiers import build_network
from tests.support import seeded


def meta(make: object) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = make(weights=None)  # type: ignore[operator]
    return network


def test_the_paper_s_networks_have_the_stages_of_the_spec() -> None:
    assert stages_of(meta(vgg19_bn), "vgg19_bn") == tuple(f"features.{place}" for place in (6, 13, 26, 39, 52))
    assert stages_of(meta(resnet18), "resnet18") == ("maxpool", "layer1", "layer2", "layer3", "layer4")


@pytest.mark.slow
def test_features_have_the_channels_of_the_spec() -> None:
    # Shapes only: 140 million weights need no values.
    substitute = meta(vgg19_bn).to_empty(device="cpu")
    shapes = shapes_of(substitute, stages_of(substitute, "vgg19_bn"), (32, 32), "substitute")
    assert shapes == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]
    target = resnet18(weights=None)
    shrink_stem(target, 32)
    assert shapes_of(target, stages_of(target, "resnet18"), (32, 32), "target") == [
        (64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4),
    ]  # fmt: skip


@pytest.mark.parametrize("make", [resnet50, densenet121])
def test_other_families_have_five_stages(make: object) -> None:
    assert len(stages_of(meta(make), "other")) == 5


def test_a_network_of_timm_has_the_stages_that_it_lists() -> None:
    network = timm.create_model("tf_efficientnet_lite0").eval()
    stages = stages_of(network, "timm:tf_efficientnet_lite0")
    # In front of each the image is halved once more: the ends of the five resolutions.
    assert stages == ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6")
    assert [shape[1] for shape in shapes_of(network, stages, (64, 64), "substitute")] == [32, 16, 8, 4, 2]


@pytest.mark.slow
def test_networks_of_timm_with_odd_layers_are_tapped_or_refused() -> None:
    # It has empty Sequentials, which are no layers.
    network = timm.create_model("ghostnet_100").eval()
    found = tapped(network, stages_of(network, "timm:ghostnet_100"), "substitute")
    with torch.no_grad():
        assert len(found(torch.zeros(1, 3, 32, 32))) == 5
    with pytest.raises(UserError, match="blocks of a timm:hrnet_w18_small are not known; name its modules"):
        stages_of(timm.create_model("hrnet_w18_small"), "timm:hrnet_w18_small")
    with pytest.raises(UserError, match="channels last"):
        tapped(timm.create_model("swin_tiny_patch4_window7_224"), ["layers.0"], "substitute")


def test_a_regnet_has_five_stages() -> None:
    assert len(stages_of(regnet_y_400mf(weights=None), "regnet_y_400mf")) == 5


@pytest.mark.slow
def test_unknown_families_are_named_by_hand() -> None:
    with pytest.raises(UserError, match="--blocks"):
        stages_of(meta(efficientnet_b0), "efficientnet_b0")
    network = efficientnet_b0(weights=None)
    assert [shape[0] for shape in shapes_of(network, ["features.1", "features.3"], (64, 64), "target")] == [16, 40]


def test_large_images_keep_the_stem() -> None:
    network = resnet18(weights=None)
    shrink_stem(network, 224)
    assert network.conv1.stride == (2, 2)
    assert isinstance(network.maxpool, nn.MaxPool2d)


@pytest.mark.slow
def test_taps_give_what_hooks_see_and_nothing_behind_the_last_one() -> None:
    with seeded(0):
        network: Any = build_network("vgg19_bn", 4, 1 / 16).eval()
    taps = ("features.6", "features.13")
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = network.features[:7](image), network.features[:14](image)
        found = tapped(network, taps, "substitute")(image)
    assert torch.equal(found["0"], expected[0])
    assert torch.equal(found["1"], expected[1])
    assert not any("classifier" in name or "features.14" in name for name in tapped(network, taps, "s").state_dict())


@pytest.mark.parametrize(
    ("blocks", "size", "said"),
    [
        (["layer9"], 32, "no module 'layer9'"),
        (["fc"], 32, "does not give one feature map"),
        (["layer1.0.relu"], 32, "does not give one feature map"),
    ],
)
def test_blocks_that_cannot_carry_a_layer_are_refused(blocks: list[str], size: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        shapes_of(resnet18(weights=None), blocks, (size, size), "target resnet18")


@pytest.mark.slow
def test_taps_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="layer9"):
        tapped(resnet18(weights=None), ["layer1", "layer9"], "substitute resnet18")
