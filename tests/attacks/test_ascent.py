"""The loop itself, on a function whose ascent is known in closed form."""

from collections.abc import Callable

import pytest
import torch

from attacks.ascent import ObjectiveValue, Parameters, ascend
from basics.errors import UserError


class Line:
    """Plain gradient steps of 0.1 on a number, projected to at most 1."""

    def start(self) -> Parameters:
        return (torch.zeros(1, dtype=torch.float64),)

    def step(self, parameters: Parameters, gradients: Parameters) -> Parameters:
        return (parameters[0] + 0.1 * gradients[0],)

    def project(self, parameters: Parameters) -> Parameters:
        return (parameters[0].clamp(max=1.0),)


def slope(parameters: Parameters) -> ObjectiveValue[float]:
    """Two samples with slopes 1 and 2: the sum climbs with 3."""
    return ObjectiveValue(torch.stack((parameters[0][0], 2 * parameters[0][0])), float(parameters[0].detach()))


def test_losses_are_kept_before_the_first_and_after_each_step() -> None:
    ascent = ascend([slope], Line(), steps=4)
    points = [0.0, 0.3, 0.6, 0.9, 1.0]
    expected = torch.tensor([[point, 2 * point] for point in points], dtype=torch.float64)
    torch.testing.assert_close(ascent.losses_SN, expected)
    assert ascent.first[0].extra == 0.0
    assert ascent.last[0].extra == 1.0
    assert float(ascent.parameters[0]) == 1.0


def test_no_step_evaluates_once_at_the_start() -> None:
    calls = []

    def counted(parameters: Parameters) -> ObjectiveValue[float]:
        calls.append(1)
        return slope(parameters)

    ascent = ascend([counted], Line(), steps=0)
    assert len(calls) == 1
    assert ascent.first is ascent.last
    assert ascent.losses_SN.shape == (1, 2)


def test_nothing_that_is_returned_holds_a_graph() -> None:
    ascent = ascend([slope], Line(), steps=2)
    tensors = (*ascent.parameters, ascent.losses_SN, ascent.first[0].loss_N, ascent.last[0].loss_N)
    assert not any(tensor.requires_grad for tensor in tensors)


def test_parts_of_a_batch_are_climbed_as_their_sum_in_float64() -> None:
    class Recorded(Line):
        """Line, which keeps the gradients that it was given."""

        def __init__(self) -> None:
            self.seen: list[torch.Tensor] = []

        def start(self) -> Parameters:
            return (torch.zeros(1),)

        def step(self, parameters: Parameters, gradients: Parameters) -> Parameters:
            self.seen.append(gradients[0])
            return (parameters[0] + 0.1 * gradients[0],)

    # In single precision 2 ** 24 + 1 - 2 ** 24 is 0.
    factors = [2.0**24, 1.0, -(2.0**24)]
    threat = Recorded()

    def part(factor: float) -> Callable[[Parameters], ObjectiveValue[float]]:
        return lambda parameters: ObjectiveValue(factor * parameters[0], factor)

    ascent = ascend([part(factor) for factor in factors], threat, steps=2)
    assert [float(gradient) for gradient in threat.seen] == [1.0, 1.0]
    assert [value.extra for value in ascent.first] == [value.extra for value in ascent.last] == factors
    assert ascent.losses_SN.shape == (3, 3)
    torch.testing.assert_close(ascent.losses_SN[1], torch.tensor(factors, dtype=torch.float64) * 0.1)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_loss_of_the_whole_batch_is_refused(steps: int) -> None:
    """The ascent is on the sum over samples, and a mean would be climbed otherwise."""
    with pytest.raises(UserError, match=r'loss of the shape \(\); give one number a sample.* reduction="none"'):
        ascend([lambda parameters: ObjectiveValue(parameters[0].mean(), None)], Line(), steps)


def test_an_ascent_of_nothing_and_of_less_than_no_step_are_refused() -> None:
    with pytest.raises(UserError, match="There is no objective"):
        ascend([], Line(), 1)
    with pytest.raises(UserError, match="The number of steps is -1; give 0 or more"):
        ascend([slope], Line(), -1)
