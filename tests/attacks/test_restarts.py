"""Which attempt counts for each sample."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.objectives import cross_entropy
from attacks.pixels import PixelConfig, attack_pixels
from attacks.restarts import Attempt, strongest
from tests.support import seeded


def as_logits(image: Tensor) -> Tensor:
    """The first pixel is the logit of class 1, and class 0 has 0.5: label 0 is fooled by a pixel above that."""
    value_N = image.flatten(1)[:, 0]
    return torch.stack([torch.full_like(value_N, 0.5), value_N], 1)


def of_values(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def table_attempt(table: dict[float, float], seen: list[list[float]]) -> Attempt:
    """An attempt that looks up the perturbed value of each image."""

    def attempt(image: Tensor, label_N: Tensor) -> Tensor:
        assert len(image) == len(label_N)
        values = [round(value, 3) for value in image[:, 0, 0, 0].tolist()]
        seen.append(values)
        return of_values(*(table[value] for value in values))

    return attempt


def test_the_first_image_that_fools_counts_else_the_one_with_the_largest_loss() -> None:
    seen: list[list[float]] = []
    attempts = [
        table_attempt({0.0: 0.1, 0.1: 0.4, 0.2: 0.6}, seen),
        table_attempt({0.0: 0.7, 0.1: 0.3}, seen),
        table_attempt({0.1: 0.0}, seen),
    ]
    clean = of_values(0.0, 0.1, 0.2, 0.9)
    result = strongest(attempts, as_logits, clean, torch.zeros(4, dtype=torch.long))
    # The last one is misclassified already; later attempts get only the remaining samples, as clean images.
    assert seen == [[0.0, 0.1, 0.2], [0.0, 0.1], [0.1]]
    assert torch.equal(result.image_N3HW, of_values(0.7, 0.4, 0.6, 0.9))
    assert result.fooled_N.tolist() == [True, False, True, True]
    expected = cross_entropy(as_logits(result.image_N3HW), torch.zeros(4, dtype=torch.long))
    assert torch.equal(result.loss_N, expected)
    assert torch.equal(clean, of_values(0.0, 0.1, 0.2, 0.9))


def test_attempts_end_when_all_samples_are_fooled() -> None:
    seen: list[list[float]] = []
    attempts = [table_attempt({0.0: 0.9}, seen), table_attempt({}, seen)]
    result = strongest(attempts, as_logits, of_values(0.0), torch.tensor([0]))
    assert len(seen) == 1
    assert result.fooled_N.all()


def test_without_attempts_the_clean_images_are_evaluated() -> None:
    result = strongest([], as_logits, of_values(0.0, 0.9), torch.tensor([0, 0]))
    assert result.fooled_N.tolist() == [False, True]


def test_random_restarts_fool_more_and_never_fewer() -> None:
    with seeded(0):
        layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
        network = nn.Sequential(*layers).requires_grad_(False)
        image = torch.rand(60, 3, 8, 8)
    label, config = network(image).argmax(1), PixelConfig(eps=4 / 255, steps=1, step_size=1 / 255)

    def attack(part: Tensor, label_N: Tensor) -> Tensor:
        return attack_pixels(lambda moved: F.cross_entropy(network(moved), label_N, reduction="none"), part, config)

    fooled = []
    for restarts in (1, 8):
        with seeded(1):
            result = strongest([attack] * restarts, network, image, label)
        assert torch.equal(network(result.image_N3HW).argmax(1) != label, result.fooled_N)
        assert float((result.image_N3HW - image).abs().max()) <= 4 / 255 + 1e-6
        fooled.append(result.fooled_N)
    assert not (fooled[0] & ~fooled[1]).any()
    assert fooled[1].sum() > fooled[0].sum()
