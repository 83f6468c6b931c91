"""What the requests to all trainers refuse, and how they open images."""

from dataclasses import replace
from pathlib import Path

import pytest

from basics.errors import UserError
from sources.opening import open_source
from tests.support import image_folder
from training.config import TrainingConfig
from training.request import TrainingRequest, open_if_address

TRAINING = TrainingConfig(epochs=1, batch_size=2, lr=0.1, image_size=16, device="cpu")


@pytest.mark.parametrize("name", ["source", "held_out"])
def test_a_run_folder_inside_of_the_images_is_refused(tmp_path: Path, name: str) -> None:
    folders = {"source": tmp_path / "images", "held_out": tmp_path / "others"}
    for folder in folders.values():
        image_folder(folder, per_class=1)
    request = TrainingRequest(
        source=str(folders["source"]), held_out=str(folders["held_out"]), out=tmp_path / "out", training=TRAINING
    )
    request.require_possible()
    with pytest.raises(UserError, match="lie within each other"):
        replace(request, out=folders[name] / "out").require_possible()


def test_a_device_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    request = TrainingRequest(source="images", out=tmp_path, training=replace(TRAINING, device="abacus"))
    with pytest.raises(UserError, match="abacus"):
        request.require_possible()


def test_an_address_is_opened_and_an_open_source_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", per_class=1)
    source = open_source(str(folder))
    assert open_if_address(source, split="train") is source
    assert list(open_if_address(str(folder), split="train").records) == list(source.records)
