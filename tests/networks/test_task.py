"""Training a small classifier."""

import json
from pathlib import Path

import pytest

from networks.classifiers import load_classifier
from networks.task import ClassifierConfig, ClassifierTask, SideImage
from sources.opening import open_source
from tests.support import image_folder, seeded
from training.config import TrainingConfig
from training.data import TrainingImages
from training.loop import train

WIDTH = 1 / 8
"""At 1/16, torch 2.15 corrupts the heap in a weight gradient (1x1, stride 2, 4 channels, channels_last)."""


@pytest.mark.slow
@pytest.mark.parametrize("side", [None, SideImage(tap="layer1", channels=8, reduction=4, coarseness=2, weight=1.0)])
def test_training_lowers_the_loss_and_leaves_a_classifier(tmp_path: Path, side: SideImage | None) -> None:
    source = open_source(str(image_folder(tmp_path / "source", per_class=6, classes=("circle", "square"))))
    images = TrainingImages(source, 32)
    config = TrainingConfig(epochs=6, batch_size=6, lr=1e-2, image_size=32, checkpoint_every=1, device="cpu")
    with seeded(0):
        task = ClassifierTask(
            ClassifierConfig(arch="resnet18", width=WIDTH, side=side), source.classes, images, tmp_path / "run"
        )  # fmt: skip
    train(task, images, config, tmp_path / "run", {})
    (path,) = task.outputs
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 12
    assert sum(losses[-2:]) < sum(losses[:2])
    found = load_classifier(None, str(path), 2)
    assert (found.name, found.width) == ("resnet18", WIDTH)
    right = sum(
        int(found.module(image[None].float() / 255).argmax()) == label
        for image, label in (images[0, i] for i in range(12))
    )
    assert lines[-1]["held_out_top1"] == right / 12
