"""The VGG encoder in both published forms, against torchvision and a plain Sequential."""

import pytest
import torch
from torch import nn
from torchvision.models import vgg19, vgg19_bn
from torchvision.transforms import functional

from basics.errors import UserError
from encoders.vgg import build, convert
from networks.normalise import IMAGENET_MEAN, IMAGENET_STD
from tests.support import close, published_vgg, seeded, with_lived_in_batch_norm


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 40, 24, generator=torch.Generator().manual_seed(0))


def with_reflection(layers: nn.Sequential) -> nn.Sequential:
    """torchvision's VGG layers, padded by reflection and pooled with ceil_mode."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = "reflect"
            layer._reversed_padding_repeated_twice = [1, 1, 1, 1]
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True
    return layers.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("network", "layers"), [(vgg19, 21), (vgg19_bn, 30)])
def test_torchvision_weights_give_torchvision_features(network, layers: int, image: torch.Tensor) -> None:  # type: ignore[no-untyped-def]
    with seeded(0):
        theirs = with_lived_in_batch_norm(network(weights=None))
    state, form = convert(theirs.state_dict())
    ours = build()
    ours.load_state_dict(state)
    normalised = functional.normalize(image, IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        expected = with_reflection(theirs.features[:layers])(normalised)
        assert expected.shape == (1, 512, 5, 3)
        assert close(ours.eval()(image), expected, relative=1e-4)
    assert form == "torchvision"


@pytest.mark.slow
def test_published_adain_weights_are_loaded_up_to_relu4_1(image: torch.Tensor) -> None:
    published = published_vgg()
    state, form = convert(published)
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    for channels_in, channels_out in ((3, 64), (64, 64)):
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels_in, channels_out, 3), nn.ReLU()]
    layers.append(nn.MaxPool2d(2, ceil_mode=True))
    start = nn.Sequential(*layers)
    start.load_state_dict({name: published[name] for name in start.state_dict()})
    ours = build()
    ours.load_state_dict(state)
    assert form == "adain"
    assert len(ours) == 31
    with torch.no_grad():
        assert close(ours[:8](image), start(image))
        assert ours(image).min() >= 0


def test_odd_sizes_are_rounded_up_by_pooling(image: torch.Tensor) -> None:
    assert build(1 / 16)(image[:, :, :33, :17]).shape == (1, 32, 5, 3)


@pytest.mark.parametrize("drop", ["29.weight", "0.weight"])
def test_other_weights_are_refused(drop: str) -> None:
    state = published_vgg()
    del state[drop]
    with pytest.raises(UserError, match="not a VGG-19"):
        convert(state)
