"""The network of two: what learns, what stays, and that an attacker's gradient passes through both."""

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abnn.layer import AdaptiveBatchNorm
from abnn.network import ABNN
from abnn.plan import NetworkPlan, SubstitutePlan, build
from abnn.task import DefenceLoss
from tests.support import seeded

SIZE, CLASSES = 32, 5


def network() -> ABNN:
    return copy.deepcopy(_network())


@cache
def _network() -> ABNN:
    substitute = SubstitutePlan(arch="vgg11_bn", classes=7, width=1 / 16)
    plan = NetworkPlan(arch="resnet18", classes=CLASSES, image_size=SIZE, width=1 / 16, substitute=substitute)
    with seeded(0):
        built = build(plan)
        assert isinstance(built, ABNN)
        # Statistics as after training, so that signals keep their size.
        image, _ = images(32)
        for part in (built.substitute, built):
            part.train()
            for _ in range(30):
                part(image)
        return built


def images(count: int = 4) -> tuple[Tensor, Tensor]:
    image = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return image, torch.arange(count) % CLASSES


@pytest.mark.slow
def test_the_substitute_gets_no_update_and_its_statistics_do_not_move() -> None:
    trained = DefenceLoss(network(), None)
    before = copy.deepcopy(trained.state_dict())
    optimizer = torch.optim.SGD([weight for weight in trained.parameters() if weight.requires_grad], lr=0.1)
    trained.train()
    for _ in range(3):
        optimizer.zero_grad()
        trained(*images())["loss"].backward()
        optimizer.step()
    after = trained.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert not {name for name in moved if ".substitute." in name}
    # All that the paper trains does move: target, its batch norms' statistics, and the layers.
    learned = {name for name in after if ".substitute." not in name}
    assert learned - moved == set()


@pytest.mark.slow
def test_gradients_of_images_are_those_of_finite_differences_through_both_networks() -> None:
    net = network().double().eval()
    image, label = images(2)
    image = image.double()

    def loss(moved: Tensor) -> Tensor:
        return F.cross_entropy(net(moved), label)

    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    dice = torch.Generator().manual_seed(2)
    for _ in range(5):
        direction = torch.randn(image.shape, dtype=torch.float64, generator=dice)
        step = 1e-8
        with torch.no_grad():
            slope = (loss(image + step * direction) - loss(image - step * direction)) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4)

    # A gradient that stopped at either network would be another one.
    with torch.no_grad():
        given = net.adaptations(image)
    leaf = image.clone().requires_grad_()
    (of_target,) = torch.autograd.grad(F.cross_entropy(net.logits(leaf, given), label), leaf)
    leaf = image.clone().requires_grad_()
    (of_substitute,) = torch.autograd.grad(F.cross_entropy(net.logits(image, net.adaptations(leaf)), label), leaf)
    assert float(of_substitute.abs().max()) > 0.01 * float(of_target.abs().max()) > 0
    assert torch.allclose(of_target + of_substitute, gradient, atol=1e-10)


@pytest.mark.slow
def test_layers_stand_behind_the_blocks_in_order() -> None:
    """The same answer from the parts, put together by hand without hooks."""
    net = network().eval()
    image, _ = images()
    bare = copy.deepcopy(net.target)
    for module in bare.modules():
        module._forward_hooks.clear()
    with torch.no_grad():
        normalised = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
            [0.229, 0.224, 0.225]
        ).view(3, 1, 1)
        features = net.substitute(normalised)
        value = bare.get_submodule("relu")(bare.get_submodule("bn1")(bare.get_submodule("conv1")(normalised)))
        for number, block in enumerate(["maxpool", "layer1", "layer2", "layer3", "layer4"]):
            layer = net.layers[number]
            assert isinstance(layer, AdaptiveBatchNorm)
            value = layer(bare.get_submodule(block)(value), layer.adapt(features[str(number)]))
        expected = bare.get_submodule("fc")(value.mean((2, 3)))
        assert torch.allclose(net(image), expected, atol=1e-5)


def test_answers_need_what_the_substitute_says() -> None:
    net = network().eval()
    image, _ = images()
    with torch.no_grad():
        whole = net(image)
        assert torch.equal(whole, net.logits(image, net.adaptations(image)))
        assert not torch.allclose(whole, net.logits(image, net.adaptations(1 - image)))


def test_a_copy_has_layers_of_its_own() -> None:
    net = network().eval()
    image, _ = images()
    with torch.no_grad():
        before = net(image)
        other = copy.deepcopy(net)
        for layer in other.layers:
            nn.init.zeros_(layer.encode.weight)  # type: ignore[union-attr, arg-type]
        assert torch.equal(net(image), before)
        assert not torch.equal(other(image), before)
