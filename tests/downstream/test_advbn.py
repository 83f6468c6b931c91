"""AdvBN's step against a plain loop over two copies of the whole network, for each of the three architectures."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.statistics import AdvBNConfig, channel_means, shift_statistics
from downstream.advbn import AdvBNNetwork, Shifted
from downstream.auxiliary import state_with
from downstream.task import synchronised
from networks.classifiers import build_network
from networks.cuts import UNLIMITED, Cut, cut_of
from tests.support import close, seeded, with_lived_in_batch_norm

CLASSES, WIDTH = 5, 1 / 8


def resnet_halves(network: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    n = network

    def front(image: Tensor) -> Tensor:
        return n.layer1(n.maxpool(n.relu(n.bn1(n.conv1(image)))))  # type: ignore[no-any-return, operator, unused-ignore]

    def head(feat: Tensor) -> Tensor:
        return n.fc(n.avgpool(n.layer4(n.layer3(n.layer2(feat)))).flatten(1))  # type: ignore[no-any-return, operator, unused-ignore]

    return front, head


def densenet_halves(network: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    layers = dict(network.features.named_children())  # type: ignore[union-attr]
    names = list(layers)
    place = names.index("transition1") + 1

    def front(image: Tensor) -> Tensor:
        for name in names[:place]:
            image = layers[name](image)
        return image

    def head(feat: Tensor) -> Tensor:
        for name in names[place:]:
            feat = layers[name](feat)
        return network.classifier(F.adaptive_avg_pool2d(feat.relu(), 1).flatten(1))  # type: ignore[no-any-return, operator, unused-ignore]

    return front, head


def efficientnet_halves(network: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    features: nn.Sequential = network.features  # type: ignore[assignment]

    def head(feat: Tensor) -> Tensor:
        return network.classifier(network.avgpool(features[3:](feat)).flatten(1))  # type: ignore[no-any-return, operator, unused-ignore]

    return features[:3], head


ARCHITECTURES = {
    "resnet50": (resnet_halves, AdvBNConfig(), True),
    "densenet121": (densenet_halves, AdvBNConfig(), False),
    "efficientnet_b0": (efficientnet_halves, AdvBNConfig(eps=0.5, steps=3), False),
}


def fresh(arch: str, *, lived_in: bool = True) -> nn.Module:
    options = {"stochastic_depth_prob": 0.0, "dropout": 0.0} if arch == "efficientnet_b0" else {}
    with seeded(0):
        width = 1.0 if arch == "efficientnet_b0" else WIDTH  # grouped convolutions cannot be narrowed
        network = build_network(arch, CLASSES, width, **options).double()
        return with_lived_in_batch_norm(network) if lived_in else network


def naive_deltas(
    head: Callable[[Tensor], Tensor], feat: Tensor, label: Tensor, attack: AdvBNConfig, rectified: bool
) -> tuple[Tensor, Tensor]:
    channels = feat.shape[1]
    mean = torch.stack([feat[:, c].mean() for c in range(channels)])[:, None, None]
    delta_mean, delta_std = torch.ones(channels, 1, 1).double(), torch.ones(channels, 1, 1).double()
    for _ in range(attack.steps):
        delta_mean.requires_grad_()
        delta_std.requires_grad_()
        loss = F.cross_entropy(head(naive_shift(feat, mean, delta_mean, delta_std, rectified)), label)
        gradients = torch.autograd.grad(loss, (delta_mean, delta_std))
        low, high = 1 - attack.eps, 1 + attack.eps
        delta_mean, delta_std = (
            (delta.detach() + attack.step_size * gradient.sign()).clamp(low, high)
            for delta, gradient in zip((delta_mean, delta_std), gradients, strict=True)
        )
    return delta_mean, delta_std


def naive_shift(feat: Tensor, mean: Tensor, delta_mean: Tensor, delta_std: Tensor, rectified: bool) -> Tensor:
    shifted = delta_std * (feat - mean) + delta_mean * mean
    return shifted.clamp(min=0) if rectified else shifted


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_step_equals_the_plain_loop(arch: str) -> None:
    halves, attack, rectified = ARCHITECTURES[arch]
    main = fresh(arch)
    ours = AdvBNNetwork(copy.deepcopy(main), cut_of(arch), attack).train()
    if arch == "densenet121":
        main.features.denseblock2.denselayer1.norm1 = nn.Identity()  # type: ignore[union-attr]
    auxiliary = copy.deepcopy(main)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(6, 3, 64, 64, dtype=torch.float64, generator=generator)
    label = torch.tensor([0, 1, 2, 3, 4, 0])

    with torch.no_grad():
        feat = halves(main.eval())[0](image)
    deltas = naive_deltas(halves(auxiliary.eval())[1], feat, label, attack, rectified)
    mean = feat.mean((0, 2, 3))[:, None, None]
    clean = halves(main.train())[1](feat)
    adversarial = halves(auxiliary.train())[1](naive_shift(feat, mean, *deltas, rectified))
    loss: Tensor = F.cross_entropy(clean, label) + F.cross_entropy(adversarial, label)
    loss.backward()  # type: ignore[no-untyped-call]

    found_feat = ours.features(image)
    shifted = ours.perturb(found_feat, label)
    for found, expected in zip(shifted.deltas, deltas, strict=True):
        assert close(found[0], expected, relative=1e-12)
    losses = ours.losses(ours.features(image), label)
    (losses.clean + losses.adversarial).backward()  # type: ignore[no-untyped-call]

    assert close(found_feat, feat, relative=1e-12)
    assert close(losses.clean_NK, clean, relative=1e-9)
    assert close(losses.adversarial_NK, adversarial, relative=1e-9)
    compare_gradients(ours, main, auxiliary)
    compare_statistics(ours, main, auxiliary)


def compare_gradients(ours: AdvBNNetwork, main: nn.Module, auxiliary: nn.Module) -> None:
    """Weights outside batch norm learn from both terms, each batch norm from its own; the front from none."""
    theirs, theirs_too = dict(main.named_parameters()), dict(auxiliary.named_parameters())
    seen = 0
    for name, weight in ours.head.named_parameters():
        assert weight.grad is not None, name
        kind = next((kind for kind in ("main", "auxiliary") if f".{kind}." in name), None)
        plain = name.replace(f".{kind}.", ".") if kind else name
        parts = [theirs[plain].grad] if kind == "main" else [theirs_too[plain].grad]
        expected = parts[0] if kind else theirs[plain].grad + theirs_too[plain].grad  # type: ignore[operator]
        assert expected is not None
        # The bias of a batch norm before another one has no gradient but rounding.
        noise = max(float(weight.grad.abs().max()), float(expected.abs().max())) < 1e-13
        assert noise or close(weight.grad, expected, relative=1e-7), name
        seen += kind is not None
    assert seen > 10
    assert all(weight.grad is None for weight in ours.front.parameters())


def compare_statistics(ours: AdvBNNetwork, main: nn.Module, auxiliary: nn.Module) -> None:
    for which, network in (("main", main), ("auxiliary", auxiliary)):
        found, expected = state_with(ours.head, which), network.state_dict()
        names = [name for name in found if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
        assert len(names) > 10
        for name in names:
            assert close(found[name].double(), expected[name].double(), relative=1e-10), name


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_deltas_stay_in_their_ball_and_the_loss_grows(arch: str) -> None:
    _, attack, _ = ARCHITECTURES[arch]
    ours = AdvBNNetwork(fresh(arch, lived_in=False), cut_of(arch), attack).eval()
    image = torch.randn(6, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([0, 1, 2, 3, 4, 0])
    feat = ours.features(image)
    shifted = ours.perturb(feat, label)
    for delta in shifted.deltas:
        assert float((delta - 1).abs().max()) <= attack.eps + 1e-12
        assert float((delta - 1).abs().max()) > 0
    losses = [F.cross_entropy(ours.logits(each, "auxiliary"), label) for each in (feat, shifted.feat_NCHW)]
    assert losses[1] > losses[0]


@pytest.mark.slow
def test_an_ascent_leaves_no_trace() -> None:
    ours = AdvBNNetwork(fresh("resnet50"), cut_of("resnet50"), AdvBNConfig(steps=2)).train()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    image = torch.randn(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours.perturb(ours.features(image), torch.tensor([0, 1, 2, 3]))
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    assert all(weight.grad is None for weight in ours.parameters())
    assert ours.head.training
    assert not ours.front.training


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet50", "timm:test_efficientnet"])
def test_batch_norm_can_be_synchronised_in_place(arch: str) -> None:
    """As on several GPUs. Without them only evaluation can be tried: names, both sets and answers stay.

    timm's batch norm holds the activation, which torch's conversion would drop.
    """
    if arch == "resnet50":
        network, cut = fresh("resnet50"), cut_of("resnet50")
    else:
        with seeded(0):
            network = with_lived_in_batch_norm(timm.create_model("test_efficientnet").double())
        cut = Cut(node="blocks.1")
    net = AdvBNNetwork(network, cut, AdvBNConfig()).eval()
    feat = net.features(torch.rand(2, 3, 64, 64, dtype=torch.float64))
    before = {which: net.logits(feat, which) for which in ("main", "auxiliary")}
    names = list(net.state_dict())
    net.head = synchronised(net.head)
    norms = [layer for layer in net.head.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in norms)
    assert list(net.state_dict()) == names
    for which, answer in before.items():
        assert torch.equal(net.logits(feat, which), answer)


@pytest.mark.slow
def test_features_out_of_a_relu6_stay_in_its_limits() -> None:
    with seeded(0):
        ours = AdvBNNetwork(build_network("mobilenet_v2", 4), cut_of("mobilenet_v2", "features.0"), AdvBNConfig())
    image = 6 * torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    feat = ours.features(image)
    shifted = ours.perturb(feat, torch.arange(4))
    free = shift_statistics(feat, channel_means(feat), *shifted.deltas, limits=UNLIMITED)
    assert float(free.max()) > 6
    assert torch.equal(shifted.feat_NCHW, free.clamp(0, 6))
    assert ours.limits == (0, 6)


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_an_ascent_in_parts_ends_where_the_whole_batch_does(micro_batch: int) -> None:
    def shifted(size: int | None) -> Shifted:
        torch.manual_seed(3)
        network = fresh("resnet50")
        ours = AdvBNNetwork(network, cut_of("resnet50"), AdvBNConfig(steps=3), micro_batch=size).train()
        image = torch.randn(6, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        # Shares of the classes, as of mixed images.
        target = torch.rand(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).softmax(1)
        return ours.perturb(ours.features(image), target)

    whole, parts = shifted(None), shifted(micro_batch)
    for found, expected in zip(parts.deltas, whole.deltas, strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(parts.feat_NCHW, whole.feat_NCHW)
