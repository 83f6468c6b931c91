"""OUDefend's block: its size, and its value against a sum written down by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abnn.oudefend import Denoise
from abnn.plan import NetworkPlan, build
from basics.errors import UserError
from tests.support import seeded


def weights_of(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_the_block_has_the_published_size() -> None:
    with torch.device("meta"):
        large, small = Denoise(1024), Denoise(256)
    assert weights_of(large) == 169_792 + 1_048_576 == 1_218_368
    assert weights_of(small) == 157_504 + 65_536 == 223_040
    assert len(large.state_dict()) == 14
    assert not any("bias" in name for name in large.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "weights"), [("hara_resnext101", 48_946_533), ("hara_resnet18", 33_304_933)])
def test_networks_with_the_block_have_the_published_size(arch: str, weights: int) -> None:
    plan = NetworkPlan(arch=arch, classes=101, image_size=112, frames=40, denoise=True)
    with torch.device("meta"):
        network = build(plan)
    assert weights_of(network) == weights
    assert len(network.state_dict()) == {"hara_resnext101": 640, "hara_resnet18": 118}[arch]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(5, 7, 7), (2, 2, 5), (1, 3, 3)])
def test_the_block_is_the_sum_of_its_branches(size: tuple[int, int, int]) -> None:
    with seeded(0):
        block = Denoise(6).double()
    feature = torch.rand(2, 6, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.3
    state = block.state_dict()

    def convolved(name: str, value: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv3d(value, weight, padding=weight.shape[-1] // 2)

    def larger(value: Tensor) -> Tensor:
        frames, height, width = value.shape[2:]
        return F.interpolate(value, (frames, 2 * height, 2 * width), mode="trilinear", align_corners=False)

    with torch.no_grad():
        reduced = convolved("reduce", feature).relu()
        first = larger(convolved("enlarge.0", reduced)).relu()
        second = larger(convolved("enlarge.1", first)).relu()
        third = larger(convolved("enlarge.2", second)).relu()
        back = F.max_pool3d(convolved("shrink.0", third), (1, 2, 2)).relu() + convolved("skips.1", second).relu()
        back = F.max_pool3d(convolved("shrink.1", back), (1, 2, 2)).relu() + convolved("skips.0", first).relu()
        over = F.max_pool3d(convolved("shrink.2", back), (1, 2, 2)).relu()
        under = F.max_pool3d(convolved("under_in", reduced), (1, 2, 2)).relu()
        under = F.interpolate(convolved("under_out", under), size, mode="trilinear", align_corners=False).relu()
        under = convolved("under_last", under).relu()
        denoised = convolved("expand", over + under).relu()
        expected = (feature + convolved("outer", denoised)).relu()
        assert torch.allclose(block(feature), expected, atol=1e-12)
    # Both branches count, or the test would not see a mistake in them.
    assert float(over.std()) > 1e-4
    assert float(under.std()) > 1e-4


def test_the_block_is_behind_layer3() -> None:
    plan = NetworkPlan(arch="hara_resnet18", classes=2, image_size=32, frames=2, width=1 / 32, denoise=True)
    with seeded(0):
        network = build(plan).eval()
    target, seen = network[1], []  # type: ignore[index]
    target.layer4.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    clip = torch.rand(1, 3, 2, 32, 32)
    with torch.no_grad():
        network(clip)
        feature = network[0](clip)  # type: ignore[index]
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2"):
            feature = target.get_submodule(name)(feature)
        for block in list(target.layer3)[:2]:
            feature = block(feature)
        assert torch.equal(seen[0], target.layer3.denoise(feature))


def test_frames_that_are_too_small_for_it_are_refused() -> None:
    plan = NetworkPlan(arch="hara_resnet18", classes=2, image_size=16, frames=4, width=1 / 32, denoise=True)
    with pytest.raises(UserError, match=r"cannot be shown clips of 4 frames of 16 px .*another --image-size"):
        build(plan)
