"""The decoder against the published layout, built plainly from torch's own modules."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from basics.errors import UserError
from decoders.adain import UpsampledConv, build_decoder, scale_to_features
from encoders import EncoderKind, encoder_kind
from tests.support import close, published_decoder, seeded


def plain_decoder() -> nn.Sequential:
    """Huang & Belongie's decoder, module by module."""
    layers: list[nn.Module] = []

    def conv(channels_in: int, channels_out: int, *, relu: bool = True) -> None:
        layers.extend([nn.ReflectionPad2d(1), nn.Conv2d(channels_in, channels_out, 3)])
        if relu:
            layers.append(nn.ReLU())

    for stage in ((512, 256), (256, 256, 256, 256, 128), (128, 128, 64), (64, 64, 3)):
        if layers:
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        for pair in pairwise(stage):
            conv(*pair, relu=pair[1] != 3)
    return nn.Sequential(*layers)


def test_the_published_weights_give_the_published_function() -> None:
    state = published_decoder()
    plain, ours = plain_decoder(), build_decoder(encoder_kind("vgg"))
    plain.load_state_dict(state)
    ours.load_state_dict(state)
    feat = torch.rand(2, 512, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert close(ours.double()(feat), plain.double()(feat), relative=1e-12)


def test_the_resnet_decoder_is_the_same_without_its_first_stage() -> None:
    state = published_decoder()
    plain, ours = nn.Sequential(*plain_decoder()[4:]), build_decoder(encoder_kind("resnet"))
    plain.load_state_dict({f"{int(name.split('.')[0]) - 4}.{name.split('.')[1]}": value
                           for name, value in state.items() if int(name.split(".")[0]) >= 4})  # fmt: skip
    ours.load_state_dict(plain.state_dict())
    feat = torch.rand(1, 256, 5, 6, generator=torch.Generator().manual_seed(0))
    assert ours(feat).shape == (1, 3, 20, 24)
    assert close(ours(feat), plain(feat))


@pytest.mark.parametrize("path", ["plain", "rewritten"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_both_ways_have_the_value_and_gradients_of_the_layers(size: tuple[int, int], path: str) -> None:
    dice = torch.Generator().manual_seed(3)
    fast = UpsampledConv(4, 6).double()
    plain = nn.Conv2d(4, 6, 3)
    slow = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.ReflectionPad2d(1), plain).double()
    plain.load_state_dict(fast.state_dict())
    image = torch.randn(2, 4, *size, dtype=torch.float64, generator=dice)
    weighting = torch.randn(2, 6, 2 * size[0], 2 * size[1], dtype=torch.float64, generator=dice)
    results = []
    for module, kernel in ((getattr(fast, path), fast.weight), (slow, plain.weight)):
        leaf = image.clone().requires_grad_()
        value = module(leaf)
        results.append((value, *torch.autograd.grad((value * weighting).sum(), (leaf, kernel))))
    for found, expected in zip(*results, strict=True):
        assert close(found, expected, relative=1e-12)


def computed_by_earlier_versions(layer: UpsampledConv, small: torch.Tensor) -> torch.Tensor:
    """Concatenated padding, slices and stacks, as data sets of revision 1 were computed."""

    def pad(image: torch.Tensor) -> torch.Tensor:
        tall = torch.cat((image[:, :, 0, None], image, image[:, :, -1, None]), dim=2)
        return torch.cat((tall[..., 0, None], tall, tall[..., -1, None]), dim=3)

    def phases(kernel: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
        first, middle, last = kernel.unbind(dim)
        return torch.stack((first, middle + last), dim), torch.stack((first + middle, last), dim)

    (height, width), padded, rows = small.shape[-2:], pad(small), []
    for row, kernel_row in enumerate(phases(layer.weight, 2)):
        both = [
            F.conv2d(padded[:, :, row : row + height + 1, column : column + width + 1], kernel, layer.bias)
            for column, kernel in enumerate(phases(kernel_row, 3))
        ]
        rows.append(torch.stack(both, dim=-1).flatten(-2))
    return torch.stack(rows, dim=-2).flatten(-3, -2)


@pytest.mark.parametrize("size", [(2, 2), (5, 4), (16, 19)])
def test_revision_1_has_the_bits_of_earlier_versions(size: tuple[int, int]) -> None:
    dice = torch.Generator().manual_seed(3)
    with seeded(1):
        layer = UpsampledConv(64, 48).to(memory_format=torch.channels_last)
    layer.layout = torch.contiguous_format
    small = torch.randn(3, 64, *size, generator=dice).contiguous(memory_format=torch.channels_last)
    weighting = torch.randn(3, 48, 2 * size[0], 2 * size[1], generator=dice)
    results = []
    for function in (layer, lambda image: computed_by_earlier_versions(layer, image)):
        leaf = small.clone().requires_grad_()
        value = function(leaf).relu()
        results.append((value, *torch.autograd.grad((value * weighting).sum(), leaf)))
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_layout_of_the_image_is_that_of_the_result(layout: torch.memory_format) -> None:
    """So that no layer behind it has to change it back."""
    layer = UpsampledConv(64, 48).to(memory_format=layout)
    found = layer(torch.randn(2, 64, 4, 5).contiguous(memory_format=layout))
    assert found.is_contiguous(memory_format=layout)


def test_width_scales_every_layer_but_the_last() -> None:
    shapes = [tuple(value.shape[:2]) for value in build_decoder(encoder_kind("vgg"), 1 / 8).state_dict().values()
              if value.ndim == 4]  # fmt: skip
    assert shapes == [(32, 64), (32, 32), (32, 32), (32, 32), (16, 32), (16, 16), (8, 16), (8, 8), (3, 8)]


def test_a_resolution_without_a_stage_is_refused() -> None:
    kind = encoder_kind("vgg")
    odd = EncoderKind(**{**vars(kind), "reduction": 32})
    with pytest.raises(UserError, match="no stage"):
        build_decoder(odd)


def test_a_fresh_decoder_answers_large_features_as_it_does_small_ones() -> None:
    feat = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    size = float(feat.double().square().mean().sqrt())
    with seeded(0):
        plain = build_decoder(encoder_kind("resnet"), 1 / 4)
    with seeded(0):
        fitted = build_decoder(encoder_kind("resnet"), 1 / 4)
    scale_to_features(fitted, 30 * feat)
    with torch.no_grad():
        # The first layer has no bias yet, so that it answers in proportion.
        assert close(fitted(30 * feat), plain(feat / size), relative=1e-4)
        assert float(plain(30 * feat).std()) > 10 * float(fitted(30 * feat).std())
