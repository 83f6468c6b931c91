"""Both encoders on 500 real ImageNet validation images, read back by plain webdataset."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from tests.support import advbn_gen, tiny_autoencoder, tiny_classifier

# Real images are perturbed before the first test.
pytestmark = pytest.mark.slow

TAR = "imagenet-sample-500.tar"
SIZE = 32


def in_image_folder_order(tar: Path) -> list[str]:
    """Names as torchvision's ImageFolder would list the unpacked tar: class by class, then by name."""
    with tarfile.open(tar) as file:
        names = [member.name for member in file if member.isfile() and member.name.endswith(".JPEG")]
    return sorted(names, key=lambda name: (name.split("/")[-2], name.split("/")[-1]))


def index_by_wnid(table: Path) -> dict[str, int]:
    """The class table, read line by line."""
    header, *lines = table.read_text().splitlines()
    columns = header.split("\t")
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines]
    wnid = next(name for name in columns if rows[0][name].startswith("n0"))
    index = next(name for name in columns if rows[0][name] == "0")
    return {row[wnid]: int(row[index]) for row in rows}


@pytest.fixture(scope="module", params=["vgg", "resnet"])
def samples(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    encoder, folder = request.param, tmp_path_factory.mktemp(request.param)
    outcome = advbn_gen(
        "imagenet-advbn", "--encoder", encoder, "--source", shared_data / TAR,
        "--autoencoder", tiny_autoencoder(folder / "autoencoder.safetensors", encoder),
        "--classifier-weights", tiny_classifier(folder / "classifier.safetensors", 1000),
        "--image-size", SIZE, "--steps", 2, "--batches-per-shard", 6, "--threads", 1, "--out", folder / "out", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert (outcome.result["images"], outcome.result["shards"]) == (500, 3)
    shards = sorted(map(str, (folder / "out").glob("*.tar")))
    return list(wds.WebDataset(shards, shardshuffle=False, empty_check=False))


def decoded(sample: dict[str, Any]) -> Any:
    return json.loads(sample["json"])


def test_all_images_are_there_in_image_folder_order(samples: list[dict[str, Any]], shared_data: Path) -> None:
    names = in_image_folder_order(shared_data / TAR)
    assert len(names) == 500
    stems = [name.split("/")[-1].removesuffix(".JPEG") for name in names]
    # One name has an apostrophe, which keys do not have.
    assert [sample["__key__"] for sample in samples] == [stem.replace("'", "_") for stem in stems]
    assert [decoded(sample)["source"].split("/")[-1] for sample in samples] == [f"{stem}.JPEG" for stem in stems]


def test_labels_are_imagenet_indices_by_wnid(samples: list[dict[str, Any]], shared_data: Path) -> None:
    index = index_by_wnid(shared_data / "imagenet-classes.tsv")
    assert len(index) == 1000
    wnids = [name.split("/")[-2] for name in in_image_folder_order(shared_data / TAR)]
    assert [int(sample["cls"]) for sample in samples] == [index[wnid] for wnid in wnids]
    assert [decoded(sample)["wnid"] for sample in samples] == wnids


def test_batches_are_of_32_and_the_last_of_20(samples: list[dict[str, Any]]) -> None:
    metadata = [decoded(sample) for sample in samples]
    assert [entry["batch"] for entry in metadata] == [index // 32 for index in range(500)]
    assert [entry["batch_size"] for entry in metadata] == [32] * 480 + [20] * 20
    assert [entry["position"] for entry in metadata] == [index % 32 for index in range(500)]


def test_images_have_the_size_and_differ(samples: list[dict[str, Any]]) -> None:
    pixels = []
    for sample in samples[::25]:
        with Image.open(io.BytesIO(sample["png"])) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIZE, SIZE))
            pixels.append(np.asarray(image))
    assert len({array.tobytes() for array in pixels}) == len(pixels)


def test_the_loss_mostly_rises(samples: list[dict[str, Any]]) -> None:
    losses = np.array([decoded(sample)["losses"] for sample in samples])
    assert losses.shape == (500, 3)
    batches = [losses[start : start + 32].mean(0) for start in range(0, 500, 32)]
    assert np.mean([batch[-1] > batch[0] for batch in batches]) > 0.9
