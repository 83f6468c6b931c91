"""Which of several attacks each image keeps."""

import torch
from torch import Tensor

from attacks.restarts import strongest


def logits_of(image: Tensor) -> Tensor:
    """The right class loses ground as an image gets brighter; it has lost above 0.5."""
    bright = image.mean((1, 2, 3))
    return torch.stack([0.5 - bright, torch.zeros_like(bright)], dim=1)


def grey(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def test_each_image_keeps_the_first_attack_that_fools_else_the_strongest() -> None:
    seen: list[list[float]] = []

    def adding(*shift: float) -> object:
        def attack(image: Tensor, label: Tensor) -> Tensor:
            assert len(image) == len(label)
            seen.append([round(float(each), 3) for each in image.mean((1, 2, 3))])
            chosen = torch.tensor([shift[[0.9, 0.1, 0.2, 0.3].index(round(float(each.mean()), 3))] for each in image])
            return image + chosen.view(-1, 1, 1, 1)

        return attack

    image, label = grey(0.9, 0.1, 0.2, 0.3), torch.zeros(4, dtype=torch.long)
    attacks = [adding(0, 0.6, 0.1, 0.05), adding(0, 0.9, 0.5, 0.02), adding(0, 0.9, 0.9, 0.1)]
    found = strongest(attacks, logits_of, image, label)  # type: ignore[arg-type]
    assert torch.allclose(found, grey(0.9, 0.7, 0.7, 0.4))
    # Fooled ones are not attacked again, and one that is wrong as it is not at all.
    assert seen == [[0.1, 0.2, 0.3], [0.2, 0.3], [0.3]]


def test_images_are_left_as_they_are_where_no_attack_gets_further() -> None:
    image = grey(0.3)
    found = strongest([lambda image, _: image - 0.1], logits_of, image, torch.zeros(1, dtype=torch.long))
    assert torch.equal(found, image)
