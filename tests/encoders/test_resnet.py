"""The ResNet encoder against torchvision's own layers."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet50
from torchvision.transforms import functional

from basics.errors import UserError
from encoders.resnet import build, convert
from networks.normalise import IMAGENET_MEAN, IMAGENET_STD
from tests.support import close, seeded, with_lived_in_batch_norm


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    with seeded(0):
        network = with_lived_in_batch_norm(resnet50(weights=None))
    module: nn.Module = network.double().eval()
    return module


@pytest.mark.slow
def test_features_are_those_of_layer1(theirs: nn.Module) -> None:
    state, form = convert(theirs.state_dict())
    ours = build().double()
    ours.load_state_dict(state)
    # Normalisation constants are kept in single precision by a float network; here both sides are float64.
    for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        setattr(ours.normalise, name, torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1))
    image = torch.rand(2, 3, 40, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept: list[torch.Tensor] = []
    hook = theirs.layer1.register_forward_hook(lambda *call: kept.append(call[2]))  # type: ignore[union-attr]
    with torch.no_grad():
        theirs(functional.normalize(image, IMAGENET_MEAN, IMAGENET_STD))
        found = ours.eval()(image)
    hook.remove()
    assert form == "torchvision"
    assert found.shape == (2, 256, 10, 6)
    assert close(found, kept[0], relative=1e-12)


@pytest.mark.slow
def test_the_state_has_nothing_after_layer1(theirs: nn.Module) -> None:
    state, _ = convert(theirs.state_dict())
    assert state.keys() == build().state_dict().keys()
    assert not any(name.startswith(("layer2", "fc", "normalise")) for name in state)


def test_a_deeper_resnet_is_refused(theirs: nn.Module) -> None:
    with pytest.raises(UserError, match="ResNet-101 or deeper"):
        convert({**theirs.state_dict(), "layer3.6.conv1.weight": torch.zeros(1)})


def test_other_weights_are_refused(theirs: nn.Module) -> None:
    state = dict(theirs.state_dict())
    del state["layer1.2.bn3.running_var"]
    with pytest.raises(UserError, match="not a ResNet-50"):
        convert(state)
