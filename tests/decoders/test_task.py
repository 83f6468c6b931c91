"""The decoder's loss, measurements and files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from decoders import task as training
from decoders.autoencoder import Autoencoder, load_autoencoder
from decoders.task import AutoencoderTask, total_variation
from encoders import encoder_kind
from sources.opening import open_source
from tests.support import WIDTH, close, image_folder, seeded
from training.config import TrainingConfig
from training.data import TrainingImages
from training.loop import train

CONFIG = TrainingConfig(epochs=2, batch_size=4, lr=1e-3, image_size=16, device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> TrainingImages:
    source = open_source(str(image_folder(tmp_path / "source", per_class=4)))
    return TrainingImages(source, 16)


@pytest.fixture
def module() -> Autoencoder:
    with seeded(0):
        return Autoencoder(encoder_kind("vgg"), WIDTH)


def fit(module: Autoencoder, images: TrainingImages, out: Path) -> Path:
    task = AutoencoderTask(module, "torchvision", images, out, {"note": "x"})
    train(task, images, CONFIG, out, {})
    return task.outputs[0]


def test_total_variation_of_a_ramp_is_known() -> None:
    # Rising by 2 a row and by 3 a column: (H - 1) * W * 2 + H * (W - 1) * 3, for each of N * C planes.
    rows, columns = torch.arange(5.0), torch.arange(7.0)
    ramp = (2 * rows[:, None] + 3 * columns).expand(2, 3, 5, 7)
    assert float(total_variation(ramp)) == 2 * 3 * (4 * 7 * 2 + 5 * 6 * 3)


def test_total_variation_by_a_plain_loop() -> None:
    image = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for n in range(2):
        for c in range(3):
            for y in range(4):
                for x in range(5):
                    here = float(image[n, c, y, x])
                    expected += abs(float(image[n, c, y + 1, x]) - here) if y < 3 else 0
                    expected += abs(float(image[n, c, y, x + 1]) - here) if x < 4 else 0
    assert float(total_variation(image)) == pytest.approx(expected, rel=1e-12)


def test_the_loss_is_mse_and_a_little_total_variation(
    module: Autoencoder, images: TrainingImages, tmp_path: Path
) -> None:
    task = AutoencoderTask(module.double(), "torchvision", images, tmp_path, {})
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses = task.losses(module, image, torch.zeros(2))
    decoded = module(image)
    mse = (decoded - image).pow(2).sum() / image.numel()
    down, right = decoded.diff(dim=2).abs().sum(), decoded.diff(dim=3).abs().sum()
    assert close(losses["mse"], mse, relative=1e-12)
    assert close(losses["loss"], mse + 1e-8 * (down + right), relative=1e-12)


def test_devices_that_share_a_batch_climb_the_same_loss(
    module: Autoencoder, images: TrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean over the parts, which is what data parallelism follows, is the loss of the whole batch."""
    monkeypatch.setattr(training, "TOTAL_VARIATION_WEIGHT", 0.1)
    image = torch.rand(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses = []
    for devices in (1, 2):
        task = AutoencoderTask(module.double(), "torchvision", images, tmp_path, {}, devices=devices)
        parts = [task.losses(module, part, torch.zeros(2))["loss"] for part in image.chunk(devices)]
        losses.append(torch.stack(parts).mean())
    assert close(losses[1], losses[0], relative=1e-12)


@pytest.mark.slow
def test_training_changes_the_decoder_only_and_improves_it(
    module: Autoencoder, images: TrainingImages, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    path = fit(module, images, tmp_path / "run")
    after = load_autoencoder(path).module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("decoder.")}
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    measured = [line["held_out_mse"] for line in lines if "held_out_mse" in line]
    assert len(measured) == 2
    assert measured[1] < measured[0]
    assert [line["step"] for line in lines if "loss" in line] == [3, 6]
    assert {line["epoch"] for line in lines} == {1, 2}


@pytest.mark.slow
def test_measurements_in_the_file_are_those_of_its_weights(
    module: Autoencoder, images: TrainingImages, tmp_path: Path
) -> None:
    path = fit(module, images, tmp_path / "run")
    found = load_autoencoder(path)
    errors = []
    for record in images.records:
        with Image.open(images.source._root / record.name) as file:  # type: ignore[attr-defined]
            assert file.size[1] == 40
        original = images[0, images.records.index(record)][0].float()[None] / 255
        with torch.no_grad():
            decoded = found.module(original).clamp(0, 1)
        errors.append(float(((decoded - original).double() ** 2).mean()))
    assert found.origin["held_out_mse"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found.origin["held_out_psnr"] == pytest.approx(np.mean(10 * np.log10(1 / np.array(errors))), rel=1e-5)
    assert found.origin["epochs_done"] == 2
    assert found.origin["note"] == "x"


@pytest.mark.slow
def test_a_picture_shows_originals_above_reconstructions(
    module: Autoencoder, images: TrainingImages, tmp_path: Path
) -> None:
    fit(module, images, tmp_path / "run")
    pictures = sorted((tmp_path / "run/reconstructions").iterdir())
    assert [path.name for path in pictures] == ["epoch-0001.png", "epoch-0002.png"]
    with Image.open(pictures[1]) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 18 + 2, 8 * 18 + 2, 3)
    # Eight of the twelve held-out images, evenly, the first at the left.
    first = images[0, 0][0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels[2:18, 2:18], first)
    assert not np.array_equal(pixels[20:36, 2:18], first)
