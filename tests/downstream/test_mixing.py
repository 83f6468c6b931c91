"""Mixed batches against the published formulas."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from downstream.mixing import Mixing, MomentExchange, exchange_moments
from tests.support import close, seeded

CLASSES = 5
LABEL = torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.fixture
def image() -> Tensor:
    return torch.rand(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_exchanged_moments_are_the_others_moments() -> None:
    feat = torch.randn(3, 8, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([1, 2, 0])
    found = exchange_moments(feat, order)
    for n in range(3):
        for y in range(2):
            for x in range(2):
                own, other = feat[n, :, y, x], feat[order[n], :, y, x]
                spread = [(((each - each.sum() / 8) ** 2).sum() / 7 + 1e-5) ** 0.5 for each in (own, other)]
                expected = (own - own.sum() / 8) / spread[0] * spread[1] + other.sum() / 8
                assert close(found[n, :, y, x], expected, relative=1e-12)


def test_exchanging_an_image_with_itself_changes_nothing() -> None:
    feat = torch.randn(3, 8, 2, 2, dtype=torch.float64)
    assert close(exchange_moments(feat, torch.arange(3)), feat, relative=1e-12)


def test_cutmix_pastes_a_box_and_shares_the_classes_by_its_area(image: Tensor) -> None:
    image, label = image[:5], LABEL[:5]
    for seed in range(5):
        with seeded(seed):
            mixed = Mixing(["cutmix"], CLASSES)(image, label)
        pasted = (mixed.image_N3HW != image).any(1)
        for n in range(len(label)):
            rows, columns = (pasted[n].any(axis).nonzero().flatten() for axis in (1, 0))
            assert int(pasted[n].sum()) == len(rows) * len(columns), "no box"
            assert float(mixed.target[n, label[n]]) == pytest.approx(1 - float(pasted[n].double().mean()), abs=1e-6)
        assert torch.allclose(mixed.target.sum(1), torch.ones(5, dtype=torch.float64))
        assert mixed.order_N is None


def test_mixup_blends_images_as_it_blends_classes(image: Tensor) -> None:
    with seeded(0):
        mixed = Mixing(["mixup"], CLASSES)(image, LABEL)
    # The last and the first image are of the same class, the others tell the weight.
    weight = float(mixed.target[1, LABEL[1]])
    assert 0 < weight < 1
    other = (mixed.image_N3HW - weight * image) / (1 - weight)
    assert all(any(torch.allclose(each, candidate, atol=1e-5) for candidate in image) for each in other)


def test_moments_come_with_a_tenth_of_the_class(image: Tensor) -> None:
    with seeded(0):
        mixed = Mixing(["moex"], CLASSES)(image, LABEL)
    assert torch.equal(mixed.image_N3HW, image)
    assert mixed.order_N is not None
    for n in range(6):
        expected = torch.zeros(CLASSES, dtype=torch.float64)
        expected[LABEL[n]] += 0.9
        expected[LABEL[mixed.order_N[n]]] += 0.1
        assert torch.allclose(mixed.target[n], expected)


@pytest.mark.slow
def test_beside_cutmix_a_quarter_of_the_batches_exchange_moments(image: Tensor) -> None:
    mixing = Mixing(["cutmix", "moex"], CLASSES)
    with seeded(0):
        exchanged = sum(mixing(image, LABEL).order_N is not None for _ in range(400))
    assert 65 < exchanged < 135  # four standard deviations around 100


def test_without_a_way_a_batch_stays(image: Tensor) -> None:
    mixed = Mixing([], CLASSES)(image, LABEL)
    assert mixed.image_N3HW is image
    assert mixed.target is LABEL


def test_moments_are_exchanged_behind_the_stem_only_when_asked_for() -> None:
    with seeded(0):
        stem, layer = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
    front = nn.Sequential(OrderedDict(maxpool=stem, layer1=layer))
    image = torch.rand(3, 3, 4, 4)
    order = torch.tensor([2, 0, 1])
    plain, behind_stem = front(image), stem(image)
    exchange = MomentExchange(front, "resnet50")
    assert torch.equal(front(image), plain)
    exchange.order_N = order
    assert torch.equal(front(image), layer(exchange_moments(behind_stem, order)))


def test_an_unknown_network_exchanges_moments_at_the_cut() -> None:
    front = nn.Sequential(nn.Conv2d(3, 4, 1))
    image, order = torch.rand(3, 3, 4, 4), torch.tensor([2, 0, 1])
    plain = front(image)
    MomentExchange(front, "timm:some").order_N = order
    assert torch.equal(front(image), exchange_moments(plain, order))
