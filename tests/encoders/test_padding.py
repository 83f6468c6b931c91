"""Padding by slices equals torch's, in value and gradient."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from encoders.padding import ReflectionPad, reflect_by_one, replicate_by_one
from tests.support import close

Pad = Callable[[torch.Tensor], torch.Tensor]


@pytest.mark.parametrize(
    ("pad", "mode"), [(reflect_by_one, "reflect"), (replicate_by_one, "replicate"), (ReflectionPad(), "reflect")]
)
@pytest.mark.parametrize("size", [(2, 2), (2, 3), (3, 2), (5, 7)])
def test_values_and_gradients_are_torchs(pad: Pad, mode: str, size: tuple[int, int]) -> None:
    dice = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, *size, dtype=torch.float64, generator=dice)
    weighting = torch.randn(2, 3, size[0] + 2, size[1] + 2, dtype=torch.float64, generator=dice)
    found, expected = image.clone().requires_grad_(), image.clone().requires_grad_()
    ours, theirs = pad(found), F.pad(expected, (1, 1, 1, 1), mode=mode)
    assert torch.equal(ours, theirs)
    (gradient,) = torch.autograd.grad((ours * weighting).sum(), found)
    (reference,) = torch.autograd.grad((theirs * weighting).sum(), expected)
    assert close(gradient, reference, relative=1e-14)


def test_one_position_is_replicated() -> None:
    image = torch.tensor([[[[3.0]]]])
    assert torch.equal(replicate_by_one(image), torch.full((1, 1, 3, 3), 3.0))


@pytest.mark.parametrize("pad", [reflect_by_one, replicate_by_one])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_layout_stays(pad: Pad, layout: torch.memory_format) -> None:
    image = torch.randn(2, 3, 4, 5).contiguous(memory_format=layout).requires_grad_()
    padded = pad(image)
    assert padded.is_contiguous(memory_format=layout)
    (gradient,) = torch.autograd.grad(padded.sum(), image)
    # The gradient is a part of a taller one, in the same order.
    assert (gradient.stride(1) == 1) == (layout == torch.channels_last)
