"""Held-out scores against a plain loop, one image at a time."""

import pytest
import torch
from torch import Tensor, nn

from basics.compute import choose_compute
from sources.opening import open_source
from tests.support import image_folder, seeded
from training.data import TrainingImages
from training.evaluation import EVALUATION_BATCH, batched, correct, held_out_scores


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> TrainingImages:
    folder = image_folder(tmp_path_factory.mktemp("images") / "source", per_class=7)
    return TrainingImages(open_source(str(folder)), 16)


@pytest.fixture
def network() -> nn.Module:
    """A network whose logits depend on the batch in training mode."""
    with seeded(0):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 1000))


@pytest.mark.parametrize("batch_size", [1, 4, 21, EVALUATION_BATCH])
def test_scores_are_means_over_images_and_not_over_batches(
    images: TrainingImages, network: nn.Module, batch_size: int
) -> None:
    def scores(image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        logits_NK = network(image_N3HW)
        return {"top1": correct(logits_NK, label_N), "largest": logits_NK.amax(1)}

    found = held_out_scores(network.train(), scores, images, choose_compute("cpu", "fp32"), batch_size)
    plain = []
    with torch.no_grad():
        for index in range(len(images)):
            image, label = images[0, index]
            logits = network.eval()(image[None].float() / 255)[0]
            plain.append((float(logits.argmax() == label), float(logits.max())))
    assert found["top1"] == sum(top1 for top1, _ in plain) / 21
    assert found["largest"] == pytest.approx(sum(largest for _, largest in plain) / 21, rel=1e-6)


def test_nothing_is_learned_from_held_out_images(images: TrainingImages, network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def scores(image_N3HW: Tensor, label_N: Tensor) -> dict[str, Tensor]:
        logits_NK = network(image_N3HW)
        assert not logits_NK.requires_grad
        return {"top1": correct(logits_NK, label_N)}

    held_out_scores(network.train(), scores, images, choose_compute("cpu", "fp32"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_batches_hold_every_image_once_in_order(images: TrainingImages) -> None:
    parts = list(batched(images, 8))
    assert [len(image) for image, _ in parts] == [8, 8, 5]
    assert torch.equal(torch.cat([image for image, _ in parts]), torch.stack([images[0, i][0] for i in range(21)]))
    assert torch.cat([label for _, label in parts]).tolist() == [record.label for record in images.records]


def test_correct_is_the_largest_logit() -> None:
    logits_NK = torch.tensor([[1.0, 2.0, 0.0], [3.0, 2.0, 1.0], [0.0, 1.0, 0.5]])
    assert correct(logits_NK, torch.tensor([1, 1, 1])).tolist() == [1, 0, 1]
