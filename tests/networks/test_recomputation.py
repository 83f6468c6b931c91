"""Activations that are computed again give the same results, and batch norm sees each batch once."""

import pytest
import torch
from torch import nn

from abnn.plan import NetworkPlan, SubstitutePlan, build
from basics.errors import UserError
from networks.recomputation import recompute_activations
from tests.support import seeded, with_lived_in_batch_norm

WIDTH = 1 / 32


def network(arch: str) -> nn.Module:
    beside = SubstitutePlan(arch="hara_resnet18", classes=2, width=WIDTH)
    plan = NetworkPlan(arch=arch, classes=3, image_size=16, frames=4, width=WIDTH, substitute=beside)
    with seeded(0):
        return with_lived_in_batch_norm(build(plan)).double()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["hara_resnet18_b", "r3d_18"])
@pytest.mark.parametrize("training", [True, False])
def test_results_and_running_statistics_are_the_same(arch: str, training: bool) -> None:
    plain, again = network(arch).train(training), network(arch).train(training)
    recompute_activations(again)
    clip = torch.rand(2, 3, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for each in (plain, again):
        leaf = clip.clone().requires_grad_()
        each(leaf.view_as(leaf)).square().sum().backward()
        weights = [weight.grad for weight in each.parameters() if weight.grad is not None]
        gradients.append([leaf.grad, *weights])
    assert len(gradients[0]) == len(gradients[1]) > 40
    for ours, theirs in zip(*gradients, strict=True):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours, theirs)
    state = again.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, state[name]), name
    counters = {int(value) for name, value in state.items() if "num_batches" in name and "substitute" not in name}
    assert counters == {int(training)}
    assert {layer.momentum for layer in again.modules() if isinstance(layer, nn.BatchNorm3d)} == {0.1}


@pytest.mark.slow
def test_less_is_kept_for_the_backward_pass() -> None:
    kept: dict[bool, int] = {}
    for again in (False, True):
        each = network("hara_resnet18_b").train()
        if again:
            recompute_activations(each)
        kept[again] = 0

        def count(value: torch.Tensor, again: bool = again) -> torch.Tensor:
            kept[again] += value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            each(torch.rand(2, 3, 4, 16, 16, dtype=torch.float64))
    assert kept[True] < 0.8 * kept[False]


def test_networks_without_such_blocks_are_refused() -> None:
    with pytest.raises(UserError, match="leave --checkpoint-activations out"):
        recompute_activations(nn.Sequential(nn.Conv3d(3, 4, 3)))
