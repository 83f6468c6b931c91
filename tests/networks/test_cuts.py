"""Front and head are the network, under its own names."""

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from basics.errors import UserError
from networks.classifiers import build_network
from networks.cuts import CUTS, RECTIFIED, UNLIMITED, Cut, cut_of, limits_of, split
from tests.support import seeded, with_lived_in_batch_norm


@lru_cache(maxsize=1)
def lived_in(arch: str, **options: Any) -> nn.Module:
    """A network of full width; tests must not change it."""
    with seeded(0):
        network: nn.Module = get_model(arch, weights=None, **options)
        return with_lived_in_batch_norm(network).eval()


PLACES = [(arch, name) for arch, cuts in CUTS.items() for name in cuts]


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "name"), PLACES)
def test_together_they_are_the_network(arch: str, name: str) -> None:
    network = lived_in(arch)
    front, head = split(network, Cut(node=CUTS[arch][name].node))
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(head(front(image)), network(image))
    names = list(network.state_dict())
    assert sorted([*front.state_dict(), *head.state_dict()]) == sorted(names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "channels", "reduction"),
    [("resnet50", 256, 4), ("densenet121", 128, 8), ("efficientnet_b0", 24, 4), ("resnet18", 64, 4)],
)
def test_published_cuts_are_where_the_paper_has_them(arch: str, channels: int, reduction: int) -> None:
    front, _ = split(get_model(arch, weights=None).eval(), cut_of(arch))
    assert front(torch.rand(1, 3, 64, 64)).shape == (1, channels, 64 // reduction, 64 // reduction)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "place", "rectified"),
    [
        ("resnet50", "conv2", True),
        ("resnet18", "layer1.0", True),
        ("resnet18", "bn1", False),
        ("densenet121", None, False),
        ("efficientnet_b0", None, False),
    ],
)
def test_features_out_of_a_relu_are_known(arch: str, place: str | None, rectified: bool) -> None:
    front, _ = split(get_model(arch, weights=None).eval(), cut_of(arch, place))
    assert limits_of(front) == (RECTIFIED if rectified else UNLIMITED)
    assert bool((front(torch.randn(1, 3, 64, 64)) >= 0).all()) is rectified


@pytest.mark.slow
def test_densenets_first_norm_behind_the_cut_is_left_out() -> None:
    network = get_model("densenet121", weights=None)
    _, head = split(network, cut_of("densenet121"))
    left = {name for name in network.state_dict() if name.startswith("features.denseblock2.denselayer1.norm1")}
    assert len(left) == 5
    assert not left & set(head.state_dict())


@pytest.mark.slow
def test_a_head_drops_in_training_only() -> None:
    _, head = split(get_model("efficientnet_b0", weights=None), cut_of("efficientnet_b0"))
    feat = torch.rand(2, 24, 16, 16)
    with torch.no_grad():
        head.train()
        assert not torch.equal(head(feat), head(feat))
        head.eval()
        assert torch.equal(head(feat), head(feat))


@pytest.mark.slow
def test_any_module_may_be_named() -> None:
    network = get_model("resnet18", weights=None).eval()
    front, head = split(network, cut_of("resnet18", "layer1.0"))
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(head(front(image)), network(image))


@pytest.mark.slow
def test_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"no module 'layer9' to cut at; give one of conv1, .*layer4\.1"):
        split(get_model("resnet18", weights=None), cut_of("resnet18", "layer9"))


def test_only_modules_with_feature_maps_are_offered() -> None:
    layers = [nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    network = nn.Sequential(*layers)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match=r"no module 'x' to cut at; give one of 0, 1\.$"):
        split(network, Cut(node="x"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match="no module 'x' to cut at; give another network"):
        split(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), Cut(node="x"))


@pytest.mark.slow
def test_a_place_with_something_around_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"flows around the module 'layer1\.0\.conv1'"):
        split(get_model("resnet18", weights=None), cut_of("resnet18", "layer1.0.conv1"))


def test_a_network_without_a_known_cut_needs_a_name() -> None:
    with pytest.raises(UserError, match="No cut is known for vgg19; name a module"):
        cut_of("vgg19")


@pytest.mark.slow
def test_a_norm_that_is_left_out_can_be_kept() -> None:
    assert cut_of("densenet121").left_out == "features.denseblock2.denselayer1.norm1"
    kept = cut_of("densenet121", keep_norm=True)
    assert kept == Cut(node="features.transition1")
    with seeded(0):
        network = build_network("densenet121", 4, 1 / 4).eval()
    front, head = split(network, kept)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(head(front(image)), network(image))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "node", "rectified"),
    [("resnet18", "layer1", True), ("efficientnet_b0", "blocks.1", False), ("regnetx_002", "s1", True)],
)
def test_timm_networks_are_cut_by_node_name(name: str, node: str, rectified: bool) -> None:
    timm = pytest.importorskip("timm")
    with seeded(0):
        network = with_lived_in_batch_norm(timm.create_model(name, num_classes=4)).eval()
    front, head = split(network, Cut(node=node))
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(head(front(image)), network(image))
    assert limits_of(front) == (RECTIFIED if rectified else UNLIMITED)
    # Batch norm still knows training from evaluation: tracing must not have fixed one of them.
    with torch.no_grad():
        feat = front(image)
        assert not torch.allclose(head.train()(feat), head.eval()(feat))


def test_a_network_that_decides_by_its_input_is_refused() -> None:
    class Fickle(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if image.sum() > 0 else -image

    with pytest.raises(UserError, match="decides by its input"):
        split(Fickle(), Cut(node="layer1"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "node", "rectified"),
    [
        ("vgg11_bn", "features.2", True),
        ("vgg11_bn", "features.3", True),
        ("vgg11_bn", "features.1", False),
        ("resnet18", "maxpool", True),
        ("googlenet", "inception3a", True),
        ("densenet121", "features.transition1", False),
        ("densenet121", "features.pool0", True),
    ],
)
def test_features_behind_a_relu_and_a_pooling_are_rectified(arch: str, node: str, rectified: bool) -> None:
    options = {"aux_logits": False, "init_weights": True} if arch == "googlenet" else {}
    front, _ = split(lived_in(arch, num_classes=4, **options), Cut(node=node))
    with torch.no_grad():
        lowest = float(front(torch.randn(2, 3, 64, 64)).min())
    assert limits_of(front) == (RECTIFIED if rectified else UNLIMITED)
    assert (lowest >= 0) is rectified
