"""Counted operations against sums written down by hand."""

import math

import pytest
import torch
from torch import nn

from abnn.checkpoint import Checkpoint, read_cost
from abnn.cost import measure_cost, operations, passes
from attacks.pixels import PixelConfig
from basics.compute import choose_compute
from tests.support import seeded

BATCH, SIDE = 3, 6
CONV = 2 * BATCH * 4 * SIDE * SIDE * 3 * 9
"""Operations of one pass through the convolution: two for each product."""
LINEAR = 2 * BATCH * 4 * SIDE * SIDE * 5


def network() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * SIDE * SIDE, 5))


def test_operations_are_those_of_a_real_step() -> None:
    """A plain step: both layers forward; of both the weights' gradient, of the second its input's as well."""
    plain = CONV + LINEAR + CONV + 2 * LINEAR
    steps = 4
    # Each attack step: both layers forward, and the gradient of both layers' inputs, but of no weight.
    attacked = plain + steps * 2 * (CONV + LINEAR)
    words = {
        "formula_passes": 10.0,
        "of": "x",
        "size": (SIDE, SIDE),
        "batch": BATCH,
        "compute": choose_compute("cpu", "fp32"),
    }
    cost = measure_cost(network(), network(), pixels=PixelConfig(steps=steps), **words)  # type: ignore[arg-type]
    assert cost.flops_plain_step == plain
    assert cost.flops_step == attacked
    assert cost.parts == {
        "target_forward": CONV + LINEAR, "substitute_forward": 0, "plain_backward": CONV + 2 * LINEAR,
    }  # fmt: skip
    assert min(cost.seconds_step, cost.seconds_plain_step) > 0
    assert (cost.passes, cost.batch, cost.device) == (10.0, BATCH, "cpu")


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("learning", [(True, True), (True, False), (False, True)])
def test_gradients_of_convolutions_cost_a_forward_pass_each(
    axes: int, groups: int, transposed: bool, learning: tuple[bool, bool]
) -> None:
    """Each product of the forward pass is part of one sum in either gradient, in groups as well."""
    kinds = {2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}
    convolution = kinds[axes][transposed](4, 8, 3, stride=2, padding=1, groups=groups, bias=False)
    value = torch.rand(2, 4, *[5] * axes, requires_grad=learning[0])
    convolution.weight.requires_grad_(learning[1])
    # In every position of the output, or of a transposed one's input, each weight of one group is used.
    positions = 5**axes if transposed else 3**axes
    forward = 2 * 2 * positions * (4 * 8 // groups) * 3**axes
    assert operations(lambda: convolution(value)) == forward
    output = convolution(value)
    assert operations(lambda: output.sum().backward()) == sum(learning) * forward


def test_the_paper_s_formula() -> None:
    assert [passes("none", 0), passes("pgd-at", 5), passes("abnn", 0), passes("oudefend", 5)] == [2, 12, 3, 24]
    # Equation 5 gives the ratio of PGD-AT to ABNN.
    assert passes("pgd-at", 5) / passes("abnn", 0) == pytest.approx((5 + 1) * 2 / 3)


def test_runs_tell_their_cost(runs: dict[str, Checkpoint]) -> None:
    costs = {name: read_cost(run.folder) for name, run in runs.items()}
    measured = {name: cost for name, cost in costs.items() if cost is not None}
    assert measured.keys() == {"none", "abnn", "pgd-at"}
    ratio = {name: cost["flops_step"] / cost["flops_plain_step"] for name, cost in measured.items()}
    assert ratio["none"] == 1
    # ABNN: one forward pass of the substitute more (and its small linear layers).
    parts = measured["abnn"]["parts"]
    more = parts["substitute_forward"] / measured["abnn"]["flops_plain_step"]
    assert ratio["abnn"] == pytest.approx(1 + more, rel=0.02)
    # Adversarial training: five times forward and backward to the image.
    parts = measured["pgd-at"]["parts"]
    assert 5 < ratio["pgd-at"] * measured["pgd-at"]["flops_plain_step"] / (2 * parts["target_forward"]) < 7
    assert not math.isnan(ratio["pgd-at"])


def test_a_measurement_leaves_torch_s_switches_as_they_were() -> None:
    before = torch.backends.cudnn.deterministic
    words = {
        "formula_passes": 2.0,
        "of": "x",
        "size": (SIDE, SIDE),
        "batch": 2,
        "compute": choose_compute("cpu", "fp32"),
    }
    measure_cost(network(), network(), pixels=None, **words)  # type: ignore[arg-type]
    assert torch.backends.cudnn.deterministic == before
