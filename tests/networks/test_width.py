"""Narrow networks still are the networks that they come from."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model, resnet50

from basics.errors import UserError
from networks.width import narrow, require_width, scaled
from tests.support import seeded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width"),
    [("resnet50", 1 / 16), ("resnet50", 1 / 4), ("vgg19", 1 / 16), ("vgg11_bn", 1 / 8), ("densenet121", 1 / 8)],
)
def test_channels_are_scaled_and_the_output_is_kept(name: str, width: float) -> None:
    with torch.device("meta"):
        full = get_model(name, weights=None, num_classes=7)
    thin = narrow(get_model(name, weights=None, num_classes=7), width)
    for (path, before), after in zip(full.named_modules(), thin.modules(), strict=True):
        assert type(before) is type(after), path
        if isinstance(before, nn.Conv2d):
            assert after.out_channels == before.out_channels * width
            assert after.in_channels == (3 if before.in_channels == 3 else before.in_channels * width)
            for name_of_fact in ("stride", "padding", "kernel_size"):
                assert getattr(after, name_of_fact) == getattr(before, name_of_fact)
            assert (after.bias is None) == (before.bias is None)
        if isinstance(before, nn.BatchNorm2d):
            assert after.num_features == before.num_features * width
    last = [layer for layer in thin.modules() if isinstance(layer, nn.Linear)][-1]
    assert last.out_features == 7
    with torch.no_grad():
        assert thin.eval()(torch.rand(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.slow
def test_branches_that_start_closed_stay_closed() -> None:
    thin = narrow(resnet50(weights=None, zero_init_residual=True), 1 / 16)
    norms = {name: layer.weight for name, layer in thin.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    assert all(bool((weight == (0 if name.endswith("bn3") else 1)).all()) for name, weight in norms.items())


def test_width_one_changes_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3))
    layer = network[0]
    assert narrow(network, 1)[0] is layer  # type: ignore[index]


@pytest.mark.slow
def test_the_seed_decides_the_weights() -> None:
    states = []
    for seed in (0, 0, 1):
        with seeded(seed):
            states.append(narrow(resnet50(weights=None), 1 / 16).state_dict()["layer1.0.conv1.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_scaled_channels_are_at_least_one() -> None:
    assert [scaled(64, 1 / 16), scaled(3, 1 / 16), scaled(64, 1), scaled(100, 0.125)] == [4, 1, 64, 12]


@pytest.mark.parametrize("width", [0, -0.5, 1.01, float("nan")])
def test_impossible_widths_are_refused(width: float) -> None:
    with pytest.raises(UserError, match="width"):
        require_width(width)
