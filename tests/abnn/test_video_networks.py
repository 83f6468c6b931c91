"""ABNN of clips: published sizes and places, and the network against a sum written down by hand."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from abnn.cost import operations
from abnn.layer import AdaptiveBatchNorm, LayerConfig
from abnn.network import ABNN
from abnn.plan import NetworkPlan, SubstitutePlan, build, plan_from
from abnn.stages import shapes_of, stages_of
from abnn.task import DefenceLoss
from basics.errors import UserError
from networks.classifiers import build_network
from networks.normalise import CLIP_COLOURS
from networks.video import set_cut_shortcuts
from tests.support import seeded, with_lived_in_batch_norm
from training.evaluation import CLIP_BATCH

PUBLISHED = NetworkPlan(
    arch="hara_resnext101", classes=101, image_size=112, frames=40,
    layer=LayerConfig(encoder="flattened", statistics="scalar"),
    substitute=SubstitutePlan(arch="hara_resnet18", classes=1),
)  # fmt: skip


def on_meta(plan: NetworkPlan) -> ABNN:
    with torch.device("meta"):
        network = build(plan)
    assert isinstance(network, ABNN)
    return network


def weights_of(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.slow
def test_the_published_form_has_the_published_size() -> None:
    network = on_meta(PUBLISHED)
    layers = [weights_of(layer) for layer in network.layers]
    assert layers == [128_450_816, 513_803_264, 256_903_168, 128_454_656, 100_671_488]
    assert sum(layers) == 1_128_283_392
    assert sum(weight.numel() for weight in network.parameters() if weight.requires_grad) == 1_176_011_557
    # Ours leaves out the substitute's last layer, of one class: 512 weights and a bias in two tensors.
    assert weights_of(network) == 1_209_042_150 - 513
    assert len(network.state_dict()) == 765 - 2
    assert all(len(layer.state_dict()) == 7 for layer in network.layers)


@pytest.mark.slow
def test_the_pooled_form_has_the_size_of_the_spec() -> None:
    network = on_meta(replace(PUBLISHED, layer=LayerConfig()))
    assert [weights_of(layer) for layer in network.layers] == [8_448, 33_792, 133_120, 528_384, 2_105_344]


STEM = (64, 20, 28, 28)


@pytest.mark.parametrize(
    ("name", "frames", "shapes"),
    [
        ("hara_resnext101", 40, [STEM, (256, 20, 28, 28), (512, 10, 14, 14), (1024, 5, 7, 7), (2048, 3, 4, 4)]),
        (
            "hara_resnext101", 16,
            [(64, 8, 28, 28), (256, 8, 28, 28), (512, 4, 14, 14), (1024, 2, 7, 7), (2048, 1, 4, 4)],
        ),
        ("hara_resnet18", 40, [STEM, STEM, (128, 10, 14, 14), (256, 5, 7, 7), (512, 3, 4, 4)]),
        (
            "r3d_18", 40,
            [(64, 40, 56, 56), (64, 40, 56, 56), (128, 20, 28, 28), (256, 10, 14, 14), (512, 5, 7, 7)],
        ),
    ],
)  # fmt: skip
def test_features_have_the_published_shapes(name: str, frames: int, shapes: list[tuple[int, ...]]) -> None:
    with torch.device("meta"):
        network = build_network(name, 2)
    assert shapes_of(network, stages_of(network, name), (frames, 112, 112), name) == shapes


def small(**changes: object) -> NetworkPlan:
    beside = SubstitutePlan(arch="hara_resnet18", classes=4, width=1 / 32)
    words = {
        "arch": "hara_resnet18_b", "classes": 3, "image_size": 16, "frames": 3, "width": 1 / 32, "substitute": beside,
        **changes,
    }  # fmt: skip
    return NetworkPlan(**words)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("substitute", ["hara_resnet18", "r3d_18"])
def test_layers_adapt_each_stage_by_the_substitute_s_same_stage(substitute: str) -> None:
    planned = SubstitutePlan(arch=substitute, classes=4, width=1 / 32)
    with seeded(0):
        beside = with_lived_in_batch_norm(build_network(substitute, 4, 1 / 32))
        network = with_lived_in_batch_norm(build(small(substitute=planned), beside)).double().eval()
    beside = beside.double().eval()
    assert isinstance(network, ABNN)
    clip = torch.rand(2, 3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def prepared(name: str) -> torch.Tensor:
        colours = CLIP_COLOURS[name]
        mean, std = (torch.tensor(each, dtype=torch.float32).double() for each in (colours.mean, colours.std))
        return (clip - mean.view(1, 3, 1, 1, 1)) / std.view(1, 3, 1, 1, 1)

    parts = [["stem"]] if substitute == "r3d_18" else [["conv1", "bn1", "relu", "maxpool"]]
    parts += [["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    prior = prepared("torchvision" if substitute == "r3d_18" else "activitynet")
    value = prepared("activitynet")
    target = network.target
    with torch.no_grad():
        for number, names in enumerate(parts):
            for name in names:
                prior = beside.get_submodule(name)(prior)
            for name in ["conv1", "bn1", "relu", "maxpool"] if number == 0 else names:
                # The modules' own forward, without the hook behind the stage.
                value = type(target.get_submodule(name)).forward(target.get_submodule(name), value)
            layer = network.layers[number]
            assert isinstance(layer, AdaptiveBatchNorm)
            pooled, linear = prior.mean((2, 3, 4)), layer.encode
            scale, shift = (pooled @ (linear.weight * (2 / pooled.shape[1]) ** 0.5).T + linear.bias).chunk(2, dim=1)
            mean = prior.flatten(1).mean(1).view(-1, 1, 1, 1, 1)
            deviation = (prior.flatten(1).var(1, correction=0) + 1e-5).sqrt().view(-1, 1, 1, 1, 1)
            normalised = layer.norm(value)
            shape = (2, -1, 1, 1, 1)
            value = scale.view(shape) * (deviation * normalised + mean) + shift.view(shape)
        expected = target.get_submodule("fc")(value.mean((2, 3, 4)))
        found = network(clip)
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_the_switch_reaches_the_shortcuts_inside_the_substitute() -> None:
    with seeded(0):
        network = build(small()).double().eval()
    clip = torch.rand(1, 3, 3, 16, 16, dtype=torch.float64)

    def gradient() -> torch.Tensor:
        leaf = clip.clone().requires_grad_()
        (found,) = torch.autograd.grad(network(leaf.view_as(leaf)).square().sum(), leaf)
        return found

    whole = gradient()
    assert set_cut_shortcuts(network, True) == 3
    assert not torch.allclose(gradient(), whole, rtol=1e-3)
    set_cut_shortcuts(network, False)
    assert torch.equal(gradient(), whole)


@pytest.mark.parametrize(
    "plan",
    [
        small(), small(colours="none", substitute=None), small(denoise=True, substitute=None),
        small(substitute=SubstitutePlan(arch="r3d_18", classes=4, colours="kinetics")),
    ],
)  # fmt: skip
def test_a_plan_of_clips_survives_being_written_down(plan: NetworkPlan) -> None:
    assert plan_from(json.loads(json.dumps(plan.as_json()))) == plan
    assert plan.evaluation_batch == plan.attack_batch == CLIP_BATCH


def test_plans_of_images_do_not_mention_clips() -> None:
    """Recipes and costs are checksums over them."""
    plan = NetworkPlan(
        arch="resnet18", classes=3, image_size=32, substitute=SubstitutePlan(arch="vgg11_bn", classes=4)
    )  # fmt: skip
    assert plan.as_json() == {
        "arch": "resnet18", "classes": 3, "image_size": 32, "width": 1.0, "blocks": (),
        "layer": {"statistics": "scalar", "encoder": "pooled"},
        "substitute": {"arch": "vgg11_bn", "classes": 4, "width": 1.0, "taps": (), "sha256": ""},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arch": "resnet18"}, "resnet18 takes images, not clips; give --arch with one of"),
        ({"arch": "hara_resnet19"}, "hara_resnet19 is not known"),
        ({"frames": None}, "hara_resnet18_b takes clips, not images"),
        ({"substitute": SubstitutePlan(arch="vgg11_bn", classes=4)}, "vgg11_bn takes images, not clips"),
        ({"width": 1.5}, "width is 1.5"),
        ({"blocks": ("layer5",)}, "1 blocks and the substitute"),
        ({"blocks": ("maxpool", "layer1", "layer2", "layer3", "layer5")}, "no module 'layer5'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build(small(**changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frames", "published"),
    [
        ("hara_resnext101", 40, 48.08), ("hara_resnext101", 16, 19.13), ("hara_resnet18", 40, 41.88),
        ("r3d_18", 40, 203.48),
    ],
)  # fmt: skip
def test_forward_passes_take_the_operations_of_the_spec(name: str, frames: int, published: float) -> None:
    with torch.device("meta"), torch.no_grad():
        network, clip = build_network(name, 101).eval(), torch.zeros(1, 3, frames, 112, 112)
        assert operations(lambda: network(clip)) / 1e9 == pytest.approx(published, abs=0.005)


@pytest.mark.slow
def test_a_plain_step_takes_the_operations_of_the_spec() -> None:
    """Grouped convolutions are counted once, which torch does not do: it finds more than twice as many."""
    with torch.device("meta"):
        trained = DefenceLoss(build(replace(PUBLISHED, substitute=None)), None).train()
        loss = trained(torch.rand(1, 3, 40, 112, 112), torch.zeros(1, dtype=torch.long))["loss"]
        backward = operations(loss.backward) / 1e9
    # Twice the forward pass, but for the clip's gradient behind the stem.
    assert backward == pytest.approx(2 * 48.08 - 16.52, abs=0.02)
