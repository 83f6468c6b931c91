"""The terms of each method's loss against what plain copies of the network give."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.pixels import PixelConfig
from attacks.statistics import AdvBNConfig
from downstream.advbn import AdvBNNetwork
from downstream.methods import METHODS, MethodLoss
from downstream.mixing import MomentExchange, exchange_moments
from networks.classifiers import build_network
from networks.cuts import cut_of
from networks.normalise import Normalise
from tests.support import close, seeded, with_lived_in_batch_norm

LABEL = torch.tensor([0, 1, 2, 3])
PIXELS = PixelConfig(eps=8 / 255, steps=3, step_size=4 / 255, random_start=False)
STATISTICS = AdvBNConfig(steps=2)


@pytest.fixture
def network() -> nn.Module:
    with seeded(0):
        return with_lived_in_batch_norm(build_network("resnet18", 4, 1 / 8).double())


@pytest.fixture
def image() -> Tensor:
    return torch.rand(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def trained(network: nn.Module, method: str, *, exchange: bool = False) -> MethodLoss:
    split = AdvBNNetwork(copy.deepcopy(network), cut_of("resnet18"), STATISTICS)
    swap = MomentExchange(split.front, "resnet18") if exchange else None
    return MethodLoss(split, METHODS[method], Normalise().double(), PIXELS, swap).double().train()


def plain(network: nn.Module, image: Tensor) -> Tensor:
    """Answer as the trained network does in its main branch: the front in evaluation mode, the head in training."""
    copied = copy.deepcopy(network).train()
    for part in ("bn1", "layer1"):
        copied.get_submodule(part).eval()
    answer: Tensor = copied(normalised(image))
    return answer


def normalised(image: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (image - mean[:, None, None]) / std[:, None, None]


def naive_pixels(network: nn.Module, image: Tensor) -> Tensor:
    """PGD against the whole network in evaluation mode: both branches start with the same batch norm."""
    copied, moved = copy.deepcopy(network).eval(), image
    for _ in range(PIXELS.steps):
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(copied(normalised(moved)), LABEL), moved)
        moved = (image + (moved + PIXELS.step_size * gradient.sign() - image).clamp(-PIXELS.eps, PIXELS.eps)).clamp(
            0, 1
        )
    return moved.detach()


TERMS = {
    "plain": {"clean"},
    "advbn": {"clean", "adversarial"},
    "advprop": {"clean", "pixel"},
    "pgd-at": {"pixel"},
    "advprop+advbn": {"clean", "adversarial", "pixel"},
    "pgd-at+advbn": {"pixel", "adversarial"},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_its_terms_and_they_are_what_plain_networks_give(
    network: nn.Module, image: Tensor, method: str
) -> None:
    found = trained(network, method)(image, LABEL)
    assert {name.removesuffix("_loss") for name in found if name.endswith("_loss")} == TERMS[method]
    if "clean_loss" in found:
        logits = plain(network, image)
        assert close(found["clean_loss"], F.cross_entropy(logits, LABEL), relative=1e-6)
        assert float(found["clean_top1"]) == float((logits.argmax(1) == LABEL).double().mean())
    if "pixel_loss" in found:
        perturbed = naive_pixels(network, image)
        assert close(found["pixel_loss"], F.cross_entropy(plain(network, perturbed), LABEL), relative=1e-5)
    if "adversarial_loss" in found:
        shown = naive_pixels(network, image) if method.startswith("pgd-at") else image
        alone = trained(network, "advbn")(shown, LABEL)
        assert close(found["adversarial_loss"], alone["adversarial_loss"], relative=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_sets_of_batch_norm_that_are_used_move(network: nn.Module, image: Tensor, method: str) -> None:
    module = trained(network, method)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(image, LABEL)
    moved = {
        which
        for name, value in module.state_dict().items()
        for which in ("main", "auxiliary", "front")
        if f".{which}." in name and not torch.equal(value, before[name])
    }
    assert moved == {"main", *(["auxiliary"] if METHODS[method].uses_auxiliary else [])}
    assert all(weight.grad is None for weight in module.parameters()), "an ascent left gradients of weights"


@pytest.mark.parametrize("method", ["advbn", "advprop"])
def test_a_mixed_target_is_the_mixed_loss_in_every_term(network: nn.Module, image: Tensor, method: str) -> None:
    """With all attacks switched off, both terms are share x loss of one class + rest x loss of the other."""
    module = trained(network, method)
    module.network.attack, module.pixels = AdvBNConfig(steps=0), PixelConfig(steps=0, random_start=False)
    other, share = LABEL.flip(0), 0.7
    target = share * F.one_hot(LABEL, 4).double() + (1 - share) * F.one_hot(other, 4).double()
    found = module(image, target)
    logits = plain(network, image)
    expected = share * F.cross_entropy(logits, LABEL) + (1 - share) * F.cross_entropy(logits, other)
    for name in TERMS[method]:
        assert close(found[f"{name}_loss"], expected, relative=1e-6)


def test_moments_are_exchanged_in_both_terms(network: nn.Module, image: Tensor) -> None:
    module, order = trained(network, "advbn", exchange=True), torch.tensor([1, 2, 3, 0])
    module.network.attack = AdvBNConfig(steps=0)
    found = module(image, LABEL, order)
    copied = copy.deepcopy(network).train()
    for part in ("bn1", "layer1"):
        copied.get_submodule(part).eval()
    copied.maxpool.register_forward_hook(lambda _module, _inputs, feat: exchange_moments(feat, order))  # type: ignore[union-attr]
    expected = F.cross_entropy(copied(normalised(image)), LABEL)
    assert close(found["clean_loss"], expected, relative=1e-6)
    assert close(found["adversarial_loss"], expected, relative=1e-6)
    assert not close(module(image, LABEL)["clean_loss"], expected, relative=1e-6), "it exchanges without being asked"


@pytest.mark.parametrize("method", ["pgd-at", "advprop"])
def test_attacked_pixels_are_the_same_in_parts(network: nn.Module, image: Tensor, method: str) -> None:
    module = trained(network, method)
    found = []
    for size in (None, 3):
        module.network.micro_batch = size
        found.append(module.perturb_pixels(image, LABEL, "main"))
    assert close(found[1], found[0], relative=1e-12)
    assert not torch.equal(found[0], image)
