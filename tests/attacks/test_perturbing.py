"""AdvBN on batches in memory against a loop written out in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.perturbing import perturb_features, perturb_images
from attacks.statistics import AdvBNConfig
from basics.errors import UserError
from networks.cuts import RECTIFIED
from tests.support import close, seeded

ATTACK = AdvBNConfig(eps=0.7, steps=4, step_size=0.25)
LABEL = torch.tensor([0, 1, 2, 0, 1])


@pytest.fixture
def networks() -> tuple[nn.Sequential, nn.Module, nn.Sequential]:
    """Encoder, decoder and a classifier with layers that do something else in training."""
    with seeded(0):
        encoder = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), nn.BatchNorm2d(6), nn.ReLU()).double()
        decoder = nn.ConvTranspose2d(6, 3, 2, stride=2).double()
        classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3))
        return encoder, decoder, classifier.double()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(5, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def naive(feat: Tensor, loss_of: nn.Module) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """The shifted features, both multipliers, and the summed loss before the first and after each step."""
    mean = feat.mean((0, 2, 3), keepdim=True)
    factors = [torch.ones_like(mean), torch.ones_like(mean)]
    losses = []
    for step in range(ATTACK.steps + 1):
        leaves = [factor.detach().requires_grad_() for factor in factors]
        shifted = F.relu(leaves[1] * (feat - mean) + leaves[0] * mean)
        loss = F.cross_entropy(loss_of(shifted), LABEL, reduction="sum")
        losses.append(float(loss.detach()))
        if step < ATTACK.steps:
            gradients = torch.autograd.grad(loss, leaves)
            factors = [
                (factor + ATTACK.step_size * gradient.sign()).clamp(1 - ATTACK.eps, 1 + ATTACK.eps)
                for factor, gradient in zip(factors, gradients, strict=True)
            ]
    return shifted.detach(), factors[0].flatten(), factors[1].flatten(), losses


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_images_are_those_of_a_plain_loop(
    networks: tuple[nn.Sequential, nn.Module, nn.Sequential], image: Tensor, micro_batch: int | None
) -> None:
    encoder, decoder, classifier = (network.train() for network in networks)
    found = perturb_images(
        image, LABEL, encoder, decoder, classifier, ATTACK, limits=RECTIFIED, micro_batch=micro_batch
    )
    assert all(network.training for network in networks), "they are left as they were"
    assert all(weight.requires_grad for network in networks for weight in network.parameters())
    for network in networks:
        network.eval()
    with torch.no_grad():
        feat = encoder(image)
        reconstructed = decoder(feat)
    shifted, mean, std, losses = naive(feat, nn.Sequential(decoder, classifier))
    assert close(found.image_N3HW, decoder(shifted), relative=1e-12)
    assert close(found.reconstructed_N3HW, reconstructed, relative=1e-12)
    assert close(found.delta_mean_C, mean, relative=1e-12)
    assert close(found.delta_std_C, std, relative=1e-12)
    assert found.losses_SN.sum(1).tolist() == pytest.approx(losses)
    assert losses[-1] > losses[0]


def test_features_are_those_of_a_plain_loop(
    networks: tuple[nn.Sequential, nn.Module, nn.Sequential], image: Tensor
) -> None:
    encoder, decoder, classifier = (network.eval() for network in networks)
    with torch.no_grad():
        feat = encoder(image)
    head = nn.Sequential(decoder, classifier)
    found = perturb_features(feat, LABEL, head, ATTACK, limits=RECTIFIED)
    shifted, mean, std, losses = naive(feat, head)
    assert close(found.feat_NCHW, shifted, relative=1e-12)
    assert close(found.delta_mean_C, mean, relative=1e-12)
    assert close(found.delta_std_C, std, relative=1e-12)
    assert found.losses_SN.sum(1).tolist() == pytest.approx(losses)
    assert not found.feat_NCHW.requires_grad


def test_the_published_strength_is_the_default() -> None:
    feat, head = torch.rand(2, 3, 4, 4), nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    found = perturb_features(feat, torch.tensor([0, 1]), head)
    assert len(found.losses_SN) == 7
    assert float((found.delta_std_C - 1).abs().max()) <= 1.1 + 1e-12


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [((3, 4, 4), 3, "give features"), ((0, 3, 4, 4), 0, "give features"), ((2, 3, 4, 4), 3, "give one each")],
)
def test_what_is_no_batch_is_refused(shape: tuple[int, ...], labels: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        perturb_features(torch.rand(shape), torch.zeros(labels, dtype=torch.long), nn.Flatten())


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_labels_are_taken_in_any_integer_type(kind: torch.dtype) -> None:
    feat, head = torch.rand(5, 3, 4, 4), nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    found = perturb_features(feat, LABEL.to(kind), head, ATTACK)
    assert torch.equal(found.feat_NCHW, perturb_features(feat, LABEL, head, ATTACK).feat_NCHW)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_features_keep_their_type(kind: torch.dtype) -> None:
    feat, head = torch.rand(5, 3, 4, 4).to(kind), nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).to(kind)
    found = perturb_features(feat, LABEL, head, ATTACK)
    assert (found.feat_NCHW.dtype, found.delta_std_C.dtype) == (kind, torch.float64)
    assert float(found.losses_SN[-1].sum()) > float(found.losses_SN[0].sum())


def test_tensors_of_inference_mode_are_taken_and_it_may_be_on(
    networks: tuple[nn.Sequential, nn.Module, nn.Sequential], image: Tensor
) -> None:
    encoder, decoder, classifier = (network.eval() for network in networks)
    expected = perturb_images(image, LABEL, encoder, decoder, classifier, ATTACK, limits=RECTIFIED)
    with torch.inference_mode():
        feat, copied = encoder(image), image.clone()
        inside = perturb_images(copied, LABEL, encoder, decoder, classifier, ATTACK, limits=RECTIFIED)
    outside = perturb_features(feat, LABEL, nn.Sequential(decoder, classifier), ATTACK, limits=RECTIFIED)
    assert torch.equal(inside.image_N3HW, expected.image_N3HW)
    assert torch.equal(outside.losses_SN, expected.losses_SN)


@pytest.mark.parametrize(
    ("batch", "labels", "message"),
    [
        (torch.uint8, torch.int64, "The batch is of torch.uint8; give features .* as floating-point numbers"),
        (torch.float32, torch.float32, "The labels are of torch.float32; give integers"),
        (torch.float32, torch.bool, "The labels are of torch.bool; give integers"),
    ],
)
def test_numbers_of_other_kinds_are_refused(batch: torch.dtype, labels: torch.dtype, message: str) -> None:
    with pytest.raises(UserError, match=message):
        perturb_features(torch.ones(2, 3, 4, 4, dtype=batch), torch.zeros(2, dtype=labels), nn.Flatten())
