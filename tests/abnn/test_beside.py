"""Networks as users have them, put beside each other."""

import pytest
import torch
from torch import nn

from abnn.beside import put_beside
from abnn.network import ABNN


def beside(target: nn.Module, substitute: nn.Module, size: tuple[int, ...]) -> ABNN:
    return put_beside(target, substitute, blocks=["0"], taps=["0"], size=size)


def small(axes: int, channels: int) -> nn.Sequential:
    """A network of images (two axes) or of clips (three)."""
    convolution = nn.Conv2d(3, channels, 3) if axes == 2 else nn.Conv3d(3, channels, 3)
    pool = nn.AdaptiveAvgPool2d(1) if axes == 2 else nn.AdaptiveAvgPool3d(1)
    return nn.Sequential(convolution, pool, nn.Flatten(), nn.Linear(channels, 5))


@pytest.mark.parametrize("size", [(8, 8), (4, 8, 8)], ids=["images", "clips"])
def test_all_of_it_has_the_data_type_of_the_target(size: tuple[int, ...]) -> None:
    network = beside(small(len(size), 6).double(), small(len(size), 4), size)
    logits = network(torch.rand(2, 3, *size, dtype=torch.float64))
    assert (logits.shape, logits.dtype) == ((2, 5), torch.float64)
    logits.sum().backward()
    assert all(weight.grad is not None for weight in network.layers.parameters() if weight.requires_grad)


def test_all_of_it_is_on_the_device_of_the_target() -> None:
    """The `meta` device stands for a GPU: it does not compute with tensors of the CPU either."""
    network = beside(small(2, 6).to("meta"), small(2, 4), (8, 8))
    assert network(torch.rand(2, 3, 8, 8, device="meta")).shape == (2, 5)
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}
