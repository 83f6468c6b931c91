"""The paper's test sets in small, and networks whose predictions differ between images and between batch-norm sets."""

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from downstream.mce import CATEGORIES, CORRUPTIONS, SEVERITIES
from networks.classifiers import build_network, save_classifier
from sources.base import numbered_classes
from tests.support import WIDTH, he_initialised, image_folder, seeded, with_lived_in_batch_norm

CLASSES = ("circle", "ring", "star")
CATEGORY = {name: category for category, names in CATEGORIES.items() for name in names}


def corrupted(
    root: Path,
    *,
    flat: Iterable[str] = (),
    corruptions: Iterable[str] = CORRUPTIONS,
    severities: Iterable[int] = SEVERITIES,
    classes: tuple[str, ...] = CLASSES,
    per_class: int = 2,
    side: int = 32,
) -> Path:
    """ImageNet-C, each subset with images of its own; corruptions in `flat` without their category."""
    for name in corruptions:
        for level in severities:
            parent = root if name in flat else root / CATEGORY[name]
            seed = 10 * CORRUPTIONS.index(name) + level
            image_folder(parent / name / str(level), per_class=per_class, classes=classes, side=side, seed=seed)
    return root


def filtered(root: Path, filters: int = 20, classes: tuple[str, ...] = CLASSES) -> Path:
    """ImageNet-Instagram with 6 images a filter."""
    for number in range(filters):
        image_folder(root / f"Filter {number}", per_class=2, classes=classes, seed=1000 + number)
    return root


def network(seed: int, width: float = WIDTH, side: int = 32) -> nn.Module:
    """A ResNet-18 of three classes whose predictions depend on the image."""
    with seeded(seed), torch.no_grad():
        built = with_lived_in_batch_norm(he_initialised(build_network("resnet18", len(CLASSES), width))).eval()
        coarse = functional.interpolate((torch.rand(32, 3, 5, 6) - 0.45) / 0.225, (side, side), mode="bicubic")
        coarse = coarse[: max(4, 32 * 32 // side)]  # large ones take long
        # Untrained, it would predict the class for every image that its weights happen to favour.
        built.get_parameter("fc.bias").sub_(built(coarse).mean(0))
    return built


def classifier(path: Path, seed: int = 1, **metadata: object) -> Path:
    """A file of such a network that is shown images at 32 px."""
    save_classifier(
        path, "resnet18", network(seed), numbered_classes(len(CLASSES)), WIDTH, **{"image_size": 32, **metadata}
    )
    return path


def run_folder(
    folder: Path, seed: int = 1, *, width: float = WIDTH, side: int = 32, method: str = "advbn", **metadata: object
) -> Path:
    """What `finetune` leaves: the same weights with two sets of batch norm."""
    folder.mkdir(parents=True)
    main = network(seed, width, side)
    auxiliary = copy.deepcopy(main)
    with seeded(seed + 100), torch.no_grad():
        for name, layer in auxiliary.named_modules():
            if isinstance(layer, nn.BatchNorm2d) and name.startswith(("layer2", "layer3", "layer4")):
                layer.weight.mul_(torch.empty_like(layer.weight).uniform_(0.8, 1.25))
    for which, built in (("main", main), ("auxiliary", auxiliary)):
        path = folder / f"{which}.safetensors"
        save_classifier(
            path, "resnet18", built, numbered_classes(len(CLASSES)), width, batch_norm=which,
            facts={"method": method}, **metadata,
        )  # fmt: skip
    return folder
