"""Images and labels by position, as torch's loaders want them."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from basics.errors import UserError
from sources.decode import BrokenImageError
from sources.labelled import LabelledImages
from tests.support import image_folder

PREPARE = v2.Compose([v2.Resize((16, 16)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "val", per_class=3, classes=("a", "b"))


def test_images_and_labels_are_the_files(folder: Path) -> None:
    images = LabelledImages(folder)
    paths = sorted(folder.rglob("*.JPEG"))
    assert (len(images), images.classes) == (6, ("a", "b"))
    assert images.targets == [images[index][1] for index in range(6)] == [0, 0, 0, 1, 1, 1]
    for index, path in enumerate(paths):
        assert images[index][0].tobytes() == Image.open(path).convert("RGB").tobytes()


@pytest.mark.slow
def test_a_shuffling_loader_with_processes_gives_each_image_once(folder: Path) -> None:
    loader = DataLoader(LabelledImages(folder, PREPARE), batch_size=4, shuffle=True, num_workers=2)
    batches = list(loader)
    assert [tuple(image.shape) for image, _ in batches] == [(4, 3, 16, 16), (2, 3, 16, 16)]
    assert sorted(torch.cat([label for _, label in batches]).tolist()) == [0, 0, 0, 1, 1, 1]


def test_what_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        LabelledImages(tmp_path / "nothing")
    images = LabelledImages(folder)
    (folder / images.source.records[4].name).write_bytes(b"no image")
    with pytest.raises(BrokenImageError, match=r"b_1|b/"):
        images[4]
