"""Networks of clips: sizes and names of the published ones, and forward passes against sums written down by hand."""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import Weights

from basics.errors import UserError
from networks import video
from networks.classifiers import build_network, load_classifier
from networks.normalise import CLIP_COLOURS
from networks.specs import load_model
from networks.video import BasicBlock, ShortcutA, VideoResNet, build_clip_network, set_cut_shortcuts
from tests.support import seeded, with_lived_in_batch_norm

WIDTH = 1 / 16
State = dict[str, Tensor]


def meta(name: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        return build_clip_network(name, classes)


@pytest.mark.parametrize(
    ("name", "classes", "weights", "tensors"),
    [
        ("hara_resnext101", 101, 47_728_165, 626), ("hara_resnext101", 400, 48_340_816, 626),
        ("hara_resnet18", 1, 33_030_593, 104), ("hara_resnet18", 101, 33_081_893, 104),
        ("hara_resnet18", 400, 33_235_280, 104), ("hara_resnet18_b", 101, 33_255_717, 122),
        ("hara_resnet18_b", 400, 33_409_104, 122), ("r3d_18", 101, 33_218_085, 122), ("r3d_18", 400, 33_371_472, 122),
    ],
)  # fmt: skip
def test_networks_are_as_large_as_the_published_ones(name: str, classes: int, weights: int, tensors: int) -> None:
    network = meta(name, classes)
    assert sum(weight.numel() for weight in network.parameters()) == weights
    assert len(network.state_dict()) == tensors


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published_names(blocks: tuple[int, ...], convolutions: int, downsampled: tuple[int, ...]) -> list[str]:
    """The names in a state dict of 3D-ResNets-PyTorch."""
    names = ["conv1.weight", *(f"bn1.{each}" for each in NORM)]
    for layer, count in enumerate(blocks, 1):
        for block in range(count):
            where = f"layer{layer}.{block}"
            for number in range(1, convolutions + 1):
                names += [f"{where}.conv{number}.weight", *(f"{where}.bn{number}.{each}" for each in NORM)]
            if block == 0 and layer in downsampled:
                names += [f"{where}.downsample.0.weight", *(f"{where}.downsample.1.{each}" for each in NORM)]
    return [*names, "fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("name", "blocks", "convolutions", "downsampled"),
    [
        ("hara_resnext101", (3, 4, 23, 3), 3, (1, 2, 3, 4)),
        ("hara_resnet18", (2, 2, 2, 2), 2, ()),
        ("hara_resnet18_b", (2, 2, 2, 2), 2, (2, 3, 4)),
    ],
)
def test_state_dicts_have_the_published_names(
    name: str, blocks: tuple[int, ...], convolutions: int, downsampled: tuple[int, ...]
) -> None:
    names = list(meta(name, 101).state_dict())
    assert names[:2] == ["conv1.weight", "bn1.weight"]
    assert names[-2:] == ["fc.weight", "fc.bias"]
    assert sorted(names) == sorted(published_names(blocks, convolutions, downsampled))


def tiny(name: str, width: float = WIDTH, classes: int = 5) -> nn.Module:
    """A narrow network in double precision whose batch norm has been lived in."""
    with seeded(3):
        network = with_lived_in_batch_norm(build_network(name, classes, width)).double().eval()
        nn.init.normal_(network.fc.bias)  # type: ignore[union-attr, arg-type]
    return network


def clips(frames: int = 5, side: int = 18) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, frames, side, side, dtype=torch.float64, generator=generator)


def norm(state: State, name: str, value: Tensor) -> Tensor:
    shape = (1, -1, 1, 1, 1)
    mean, variance = state[f"{name}.running_mean"].view(shape), state[f"{name}.running_var"].view(shape)
    scale, shift = state[f"{name}.weight"].view(shape), state[f"{name}.bias"].view(shape)
    return (value - mean) / (variance + 1e-5).sqrt() * scale + shift


Shortcut = Callable[[Tensor, int, Tensor], Tensor]
"""(feature, stride, residual) -> what is added to the residual."""


def zeros_behind(feature: Tensor, stride: int, residual: Tensor) -> Tensor:
    """Shortcut A, by a pooling of single positions and a concatenation, as it is published."""
    kept = F.avg_pool3d(feature, kernel_size=1, stride=stride)
    missing = residual.shape[1] - kept.shape[1]
    return torch.cat([kept, kept.new_zeros(len(kept), missing, *kept.shape[2:])], dim=1)


def cut_zeros_behind(feature: Tensor, stride: int, residual: Tensor) -> Tensor:
    """The published fault: nothing passes back."""
    return zeros_behind(feature.detach(), stride, residual)


def by_hand(state: State, clip: Tensor, groups: int, shortcut: Shortcut = zeros_behind) -> Tensor:
    """Logits of a network of the collection, from its state dict."""
    stem = F.conv3d(clip, state["conv1.weight"], stride=(1, 2, 2), padding=3)
    value = F.max_pool3d(norm(state, "bn1", stem).relu(), 3, stride=2, padding=1)
    for layer in (1, 2, 3, 4):
        for block in range(count_blocks(state, layer)):
            stride = 2 if layer > 1 and block == 0 else 1
            value = block_by_hand(state, f"layer{layer}.{block}", value, stride, groups, shortcut)
    return F.linear(value.mean((2, 3, 4)), state["fc.weight"], state["fc.bias"])


def count_blocks(state: State, layer: int) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"layer{layer}.")})


def block_by_hand(state: State, where: str, value: Tensor, stride: int, groups: int, shortcut: Shortcut) -> Tensor:
    def convolved(number: int, feature: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
        weight = state[f"{where}.conv{number}.weight"]
        value = F.conv3d(feature, weight, stride=stride, padding=padding, groups=groups)
        return norm(state, f"{where}.bn{number}", value)

    if f"{where}.conv3.weight" in state:
        inner = convolved(2, convolved(1, value).relu(), stride=stride, padding=1, groups=groups).relu()
        residual = convolved(3, inner)
    else:
        residual = convolved(2, convolved(1, value, stride=stride, padding=1).relu(), padding=1)
    if f"{where}.downsample.0.weight" in state:
        projected = F.conv3d(value, state[f"{where}.downsample.0.weight"], stride=stride)
        added = norm(state, f"{where}.downsample.1", projected)
    else:
        added = value if stride == 1 else shortcut(value, stride, residual)
    return (residual + added).relu()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "groups"), [("hara_resnet18", 1), ("hara_resnet18_b", 1), ("hara_resnext101", 2)])
def test_forward_passes_are_those_written_by_hand(name: str, groups: int) -> None:
    network = tiny(name)
    with torch.no_grad():
        found, expected = network(clips()), by_hand(network.state_dict(), clips(), groups)
    assert found.std() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("cut", "shortcut"), [(False, zeros_behind), (True, cut_zeros_behind)])
def test_gradients_pass_through_shortcut_a_unless_it_is_cut(cut: bool, shortcut: Shortcut) -> None:
    network = tiny("hara_resnet18")
    assert set_cut_shortcuts(network, cut) == 3
    ours, by_hand_of = clips().requires_grad_(), clips().requires_grad_()
    (found,) = torch.autograd.grad(network(ours).square().sum(), ours)
    expected_logits = by_hand(network.state_dict(), by_hand_of, 1, shortcut)
    (expected,) = torch.autograd.grad(expected_logits.square().sum(), by_hand_of)
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-12 * float(expected.abs().max()) + 1e-14)
    (other,) = torch.autograd.grad(
        by_hand(network.state_dict(), by_hand_of, 1, zeros_behind if cut else cut_zeros_behind).square().sum(),
        by_hand_of,
    )
    assert not torch.allclose(found, other, rtol=1e-2)


def test_the_output_of_shortcut_a_requires_a_gradient() -> None:
    feature = clips().requires_grad_()
    shortcut = ShortcutA(2)
    assert shortcut(feature, 7).requires_grad
    assert shortcut(feature, 7).shape == (2, 7, 3, 9, 9)
    shortcut.cut = True
    assert not shortcut(feature, 7).requires_grad


def test_networks_without_shortcut_a_have_nothing_to_cut() -> None:
    assert set_cut_shortcuts(meta("hara_resnet18_b", 2), True) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", video.CLIP_NETWORKS)
@pytest.mark.parametrize("width", [1 / 32, 0.3])
def test_every_network_is_narrowed_to_any_width(name: str, width: float) -> None:
    with torch.device("meta"):
        network = build_network(name, 3, width)
        assert network.eval()(torch.zeros(1, 3, 2, 8, 8)).shape == (1, 3)
    assert network.fc.in_features == round({"hara_resnext101": 2048}.get(name, 512) * width)  # type: ignore[union-attr]


def test_narrow_networks_are_drawn_from_the_seed() -> None:
    first, again = tiny("hara_resnet18"), tiny("hara_resnet18")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    deviation = float(first.state_dict()["conv1.weight"].std())
    # Kaiming's normal of what a weight gives out, for a ReLU.
    assert deviation == pytest.approx((2 / (4 * 7**3)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("hara_resnet18", (114.7748, 107.7354, 99.4750), (1.0, 1.0, 1.0)),
        ("r3d_18", (0.43216 * 255, 0.394666 * 255, 0.37645 * 255), (0.22803 * 255, 0.22145 * 255, 0.216989 * 255)),
    ],
)
def test_each_network_has_its_own_colours_inside(
    name: str, mean: tuple[float, ...], std: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, name)
    found = load_classifier(name, "seed:0", 4, clips=True)
    assert (found.clips, found.classes, found.colours) == (
        True, 4, {"r3d_18": "torchvision"}.get(name, "activitynet"),
    )  # fmt: skip
    clip = clips(3, 8).float()
    shape = (1, 3, 1, 1, 1)
    pixels = (clip * 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    with torch.no_grad():
        assert torch.allclose(found.module(clip), found.module[1](pixels), rtol=1e-4, atol=1e-4)  # type: ignore[index]


def small(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a network of this name have one block of 64 channels a layer, so that it and its file are small."""
    monkeypatch.setitem(
        video._NETWORKS, name, lambda classes: VideoResNet(BasicBlock, (64, 64, 64, 64), (1, 1, 1, 1), "A", classes)
    )


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("wrapped", ["2018", "2020", "plain"])
def test_files_of_the_public_layouts_are_read_whole(
    prefix: str, counters: bool, wrapped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    name = "hara_resnet18"
    small(monkeypatch, name)
    with seeded(2):
        theirs = with_lived_in_batch_norm(build_clip_network(name, 400)).state_dict()
    state = {f"{prefix}{key}": value for key, value in theirs.items() if counters or "num_batches" not in key}
    around = {"epoch": 200, "arch": "resnet-18", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}
    content = {"2018": around, "2020": {**around, "scheduler": {"last_epoch": 3}}, "plain": state}[wrapped]
    torch.save(content, tmp_path / "x.pth")
    found = load_model(f"{name}={tmp_path / 'x.pth'}", clips=True)
    inside = found.module[1].state_dict()  # type: ignore[index]
    assert inside.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in inside.items() if "num_batches" not in key)
    assert found.classes == 400
    # The file's form shows how colours were prepared, which is said; a user's word is stronger.
    assert found.colours == ("kinetics" if wrapped == "2020" else "activitynet")
    assert ("--normalisation" in capsys.readouterr().err) == (wrapped == "2020")
    chosen = load_model(f"{name}={tmp_path / 'x.pth'}", clips=True, colours="none")
    assert chosen.colours == "none"
    assert torch.equal(chosen.module[0].std.flatten(), torch.tensor(CLIP_COLOURS["none"].std))  # type: ignore[index]


def test_torchvision_s_weights_are_had_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "r3d_18")
    fetched = []

    def get_model(name: str, weights: Weights) -> nn.Module:
        fetched.append((name, str(weights)))
        return build_clip_network(name, 400)

    monkeypatch.setattr("networks.classifiers.get_model", get_model)
    found = load_model("r3d_18", clips=True)
    assert fetched == [("r3d_18", "R3D_18_Weights.KINETICS400_V1")]
    assert (found.classes, found.weights, found.colours, found.view.crop) == (400, "published", "torchvision", 112)
    monkeypatch.setattr("networks.classifiers.get_model", mock.Mock(side_effect=OSError("no network")))
    with pytest.raises(UserError, match=r"could not be downloaded \(no network\); give a file with --x r3d_18=FILE"):
        load_model("r3d_18", "--x", clips=True)


@pytest.mark.parametrize(
    ("spec", "clips_wanted", "said"),
    [
        ("resnet18=seed:0", True, "takes images, not clips; give --x with one of hara_resnext101"),
        ("timm:resnet18", True, "takes images, not clips"),
        ("resnet19=seed:0", True, "is not known; give --x with one of"),
        ("hara_resnet18=seed:0", False, "takes clips, not images"),
        ("r3d_18", False, "takes clips, not images"),
        ("hara_resnet18", True, "publishes no weights of hara_resnet18; give a file with --x hara_resnet18=FILE"),
    ],
)
def test_networks_of_the_other_kind_are_refused(spec: str, clips_wanted: bool, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_model(spec, "--x", clips=clips_wanted)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("hara_resnet18_b", "x.pth are of a hara_resnet18_b, not of a hara_resnet18; give --x hara_resnet18_b=.*x.pth"),
        ("r3d_18", "x.pth are of a r3d_18, not of a hara_resnet18; give --x r3d_18=.*x.pth"),
        # An image network's weights have the same names as those of a network of clips.
        ("resnet18", "x.pth are of a network of images, not of clips"),
    ],
)
def test_weights_of_another_network_are_named(
    given: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = build_network(given, 7, 1 / 32).state_dict()
    state = {f"module.{name}": value for name, value in theirs.items() if "num_batches" not in name}
    torch.save({"state_dict": state, "scheduler": {}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=said):
        load_model(f"hara_resnet18={tmp_path / 'x.pth'}", "--x", clips=True)
    assert not capsys.readouterr().err


def test_an_unknown_way_to_prepare_colours_is_refused() -> None:
    with pytest.raises(UserError, match=r"no normalisation 'imagenet'; give one of activitynet"):
        load_model("hara_resnet18=seed:0", clips=True, colours="imagenet")
