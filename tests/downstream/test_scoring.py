"""Scores against a plain loop."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from basics.compute import choose_compute
from basics.errors import UserError
from downstream.scoring import score
from networks.classifiers import load_classifier
from sources.opening import open_source
from tests.support import image_folder, tiny_classifier

CLASSES = ("cat", "dog", "owl")


def test_scores_equal_a_loop_over_single_images(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", per_class=11, classes=CLASSES, side=32)
    files = [tiny_classifier(tmp_path / f"{seed}.safetensors", 3, seed=seed) for seed in (1, 2)]
    models = [load_classifier(None, str(file), 3) for file in files]
    scores = score(models, "original", open_source(folder), 32, choose_compute("cpu", "fp32"))
    for model, found in zip(models, scores, strict=True):
        right = 0
        for label, name in enumerate(CLASSES):
            for path in sorted((folder / name).iterdir()):
                pixels = pil_to_tensor(Image.open(path).convert("RGB"))
                # The images are 32 high and up to 52 wide: the centre is taken.
                left = round((pixels.shape[2] - 32) / 2)
                answer = model.module(pixels[None, :, :, left : left + 32] / 255).argmax()
                right += int(answer == label)
        assert found.n == 33
        assert found.top1 == pytest.approx(right / 33)
        assert 0 < right < 33


def test_a_classifier_of_other_classes_is_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", per_class=1, classes=CLASSES)
    model = load_classifier(None, str(tiny_classifier(tmp_path / "c.safetensors", 5)), 5)
    with pytest.raises(UserError, match="5 classes"):
        score([model], "original", open_source(folder), 32, choose_compute("cpu", "fp32"))
    assert isinstance(model.module, torch.nn.Module)
