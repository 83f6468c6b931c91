"""Two sets of batch norm that do not mix."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, vgg11

from basics.errors import UserError
from downstream.auxiliary import DualBatchNorm, add_auxiliary, state_with, using
from networks.checkpoints import StateDict
from tests.support import seeded, with_lived_in_batch_norm


@pytest.fixture
def network() -> nn.Module:
    with seeded(0):
        network: nn.Module = with_lived_in_batch_norm(resnet18(num_classes=4))
    return network


def test_both_sets_start_equal(network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    add_auxiliary(network)
    for which in ("main", "auxiliary"):
        state = state_with(network, which)
        assert state.keys() == before.keys()
        assert all(torch.equal(state[name], before[name]) for name in before)


def test_only_the_set_in_use_moves(network: nn.Module) -> None:
    add_auxiliary(network)
    before = {which: {k: v.clone() for k, v in state_with(network, which).items()} for which in ("main", "auxiliary")}
    with using(network.train(), "auxiliary"):
        network(torch.rand(4, 3, 64, 64))
    moved = {
        which: any(not torch.equal(value, before[which][name]) for name, value in state_with(network, which).items())
        for which in before
    }
    assert moved == {"main": False, "auxiliary": True}


def test_the_set_in_use_is_put_back(network: nn.Module) -> None:
    add_auxiliary(network.eval())
    with torch.no_grad():
        for name, value in network.named_parameters():
            if ".auxiliary." in name:
                value.mul_(2)
    image = torch.rand(2, 3, 64, 64)

    def fail() -> None:
        with using(network, "auxiliary"):
            assert not torch.equal(network(image), main)
            raise RuntimeError

    with torch.no_grad():
        main = network(image)
        with pytest.raises(RuntimeError):
            fail()
        assert torch.equal(network(image), main)
        with using(network, "auxiliary"), using(network, "main"):
            assert torch.equal(network(image), main)


def with_dual_names(network: nn.Module, main: StateDict, auxiliary: StateDict) -> StateDict:
    """Join two plain state dicts, one of each set, into one for a network with dual batch norm."""
    state = dict(main)
    norms = {name: layer for name, layer in network.named_modules() if isinstance(layer, DualBatchNorm)}
    for name, norm in norms.items():
        for key in norm.main.state_dict():
            state[f"{name}.main.{key}"] = state.pop(f"{name}.{key}")
            state[f"{name}.auxiliary.{key}"] = auxiliary[f"{name}.{key}"]
    return state


@pytest.mark.slow
def test_two_states_become_one_and_back(network: nn.Module) -> None:
    with seeded(1):
        other = with_lived_in_batch_norm(resnet18(num_classes=4)).state_dict()
    main = {name: value.clone() for name, value in network.state_dict().items()}
    add_auxiliary(network)
    network.load_state_dict(with_dual_names(network, main, other))
    norms = [name for name in main if name.endswith(("running_mean", "running_var"))]
    assert all(torch.equal(state_with(network, "auxiliary")[name], other[name]) for name in norms)
    assert all(torch.equal(state_with(network, "main")[name], main[name]) for name in main)


@pytest.mark.slow
def test_a_network_without_batch_norm_is_refused() -> None:
    with pytest.raises(UserError, match="no batch norm behind the cut"):
        add_auxiliary(vgg11(num_classes=4))


def test_an_unknown_set_is_a_mistake(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="third"), using(network, "third"):
        pass
