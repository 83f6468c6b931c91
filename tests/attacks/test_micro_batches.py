"""Micro-batches change no sample's result, and no more samples than asked for are in one pass."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.micro_batches import in_micro_batches, micro_batches, outputs_in_micro_batches, require_micro_batch
from attacks.pixels import PixelConfig, attack_pixels
from attacks.rectangles import RectangleConfig, Search, attack_rectangles
from basics.errors import UserError
from tests.support import seeded

LABEL = torch.tensor([0, 3, 4, 1, 2])
IMAGES, CLIPS = (5, 3, 8, 8), (5, 3, 4, 8, 8)


class Counting(nn.Module):
    """A network of images or clips that notes how many samples it was shown at a time."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        convolution, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if dimensions == 4 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
        with seeded(0):
            layers = convolution(3, 4, 3), nn.Tanh(), pool(2), nn.Flatten(), nn.LazyLinear(5)
            self.layers = nn.Sequential(*layers).double()
            self.layers(torch.zeros(1, 3, *[8] * (dimensions - 2), dtype=torch.float64))
        self.requires_grad_(False)
        self.shown: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shown.append(len(image))
        logits: Tensor = self.layers(image)
        return logits


def samples(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_of(network: nn.Module, size: int | None) -> Callable[[Tensor], Tensor]:
    def of_part(image: Tensor, part: slice) -> Tensor:
        return F.cross_entropy(network(image), LABEL[part], reduction="none")

    return in_micro_batches(of_part, size)


def test_parts_cover_a_batch_once() -> None:
    assert micro_batches(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert micro_batches(4, 2) == [slice(0, 2), slice(2, 4)]
    assert micro_batches(3, None) == micro_batches(3, 3) == micro_batches(3, 9) == [slice(0, 3)]
    assert micro_batches(0, None) == micro_batches(0, 2) == []


@pytest.mark.parametrize("shape", [IMAGES, CLIPS], ids=["images", "clips"])
def test_losses_and_gradients_are_those_of_the_whole_batch(shape: tuple[int, ...]) -> None:
    network, weights = Counting(len(shape)), torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0], dtype=torch.float64)

    def value(size: int | None) -> tuple[Tensor, Tensor]:
        leaf = samples(shape).requires_grad_()
        loss = loss_of(network, size)(leaf)
        (gradient,) = torch.autograd.grad((weights * loss).sum(), leaf)
        return loss.detach(), gradient

    whole = value(None)
    for size in (1, 2, 5, 7):
        network.shown.clear()
        for found, expected in zip(value(size), whole, strict=True):
            assert torch.allclose(found, expected, rtol=1e-12, atol=1e-15)
        assert network.shown == [len(range(5)[part]) for part in micro_batches(5, size)], "a pass was repeated"


@pytest.mark.parametrize("size", [1, 2])
def test_gradients_pass_through_what_comes_before(size: int) -> None:
    network = Counting(4)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def slope(size: int | None) -> Tensor:
        return torch.autograd.grad(loss_of(network, size)(samples(IMAGES) * scale).sum(), scale)[0]

    assert torch.allclose(slope(size), slope(None), rtol=1e-12)


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    network = Counting(4)
    with torch.no_grad():
        loss = loss_of(network, 2)(samples(IMAGES).requires_grad_())
    assert not loss.requires_grad
    assert not loss_of(network, 2)(samples(IMAGES)).requires_grad
    assert network.shown == [2, 2, 1] * 2


@pytest.mark.parametrize("shape", [IMAGES, CLIPS], ids=["images", "clips"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_on_pixels_is_the_same(shape: tuple[int, ...], norm: str) -> None:
    network = Counting(len(shape))
    config = PixelConfig(eps=0.1, steps=4, step_size=0.03, norm=norm)  # type: ignore[arg-type]

    def found(size: int | None) -> Tensor:
        with seeded(3):
            return attack_pixels(loss_of(network, size), samples(shape), config)

    whole = found(None)
    network.shown.clear()
    assert torch.allclose(found(2), whole, rtol=0, atol=1e-12)
    assert max(network.shown) == 2


@pytest.mark.parametrize("shape", [IMAGES, CLIPS], ids=["images", "clips"])
@pytest.mark.parametrize("search", ["exhaustive", "gradient", "random"])
@pytest.mark.parametrize("per_frame", [True, False])
def test_an_attack_with_rectangles_is_the_same(shape: tuple[int, ...], search: Search, per_frame: bool) -> None:
    network = Counting(len(shape))
    config = RectangleConfig(height=3, width=4, search=search, stride=2, candidates=3, per_frame=per_frame)

    def found(size: int | None) -> Tensor:
        with seeded(3):
            return attack_rectangles(loss_of(network, size), samples(shape), config)

    whole = found(None)
    network.shown.clear()
    assert torch.allclose(found(2), whole, rtol=0, atol=1e-12)
    assert max(network.shown) == 2


def test_outputs_are_those_of_the_whole_batch() -> None:
    network = Counting(5)
    outputs = outputs_in_micro_batches(network, 2)(samples(CLIPS).requires_grad_())
    assert not outputs.requires_grad
    assert network.shown == [2, 2, 1]
    assert torch.allclose(outputs, network(samples(CLIPS)), rtol=1e-12)
    assert torch.equal(outputs_in_micro_batches(network, None)(samples(CLIPS)), network(samples(CLIPS)))


@pytest.mark.parametrize("size", [0, -1])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"micro-batch is {size}; give 1 or more"):
        require_micro_batch(size)
