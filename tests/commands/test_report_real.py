"""The whole chain on 500 real ImageNet validation images, odd last batch included."""

import io
import json
import tarfile
from pathlib import Path

import h5py
import pytest
import torch
from PIL import Image
from torchvision import transforms

from networks.specs import load_model
from tests.support import advbn_gen, tiny_autoencoder, tiny_classifier

# The 500 images are perturbed and scored before the first test.
pytestmark = pytest.mark.slow

TAR = "imagenet-sample-500.tar"


@pytest.fixture(scope="module")
def made(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    # Half the size of the field's evaluation, which takes a quarter of the time.
    tiny_classifier(folder / "attacked.safetensors", 1000, image_size=32)
    tiny_classifier(folder / "unseen.safetensors", 1000, seed=4, view={"crop": 112, "resize": 128})
    done = advbn_gen(
        "imagenet-advbn", "--encoder", "vgg", "--source", shared_data / TAR, "--reconstructed",
        "--autoencoder", tiny_autoencoder(folder / "autoencoder.safetensors"),
        "--classifier-weights", folder / "attacked.safetensors",
        "--image-size", 32, "--steps", 1, "--batches-per-shard", 6, "--out", folder / "imagenet-advbn-vgg",
    )  # fmt: skip
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def reported(made: Path, shared_data: Path) -> Path:
    done = advbn_gen(
        "report", "gap", "--original", shared_data / TAR, "--reconstructed", made / "imagenet-reconstructed-vgg",
        "--advbn", made / "imagenet-advbn-vgg", "--model", made / "attacked.safetensors",
        made / "unseen.safetensors", "--out", made / "gap", "--loaders", 1, "--precision", "fp64",
    )  # fmt: skip
    assert done.code == 0, done.err
    return made / "gap"


def test_all_500_are_counted_everywhere(reported: Path) -> None:
    report = json.loads((reported / "report.json").read_text())
    assert (report["n"], len(report["rows"])) == (500, 6)
    assert {row["n"] for row in report["rows"]} == {500}
    assert report["ascent"]["batches"] == 16  # 15 of 32 and one of 20
    assert sum(each["n"] for each in report["classes"]) == 500
    assert {(row["model"], row["data"], row["transform"]) for row in report["rows"]} == {
        *(("unseen", data, "resize 128 bilinear, crop 112") for data in ("original", "reconstructed", "advbn")),
        ("attacked", "original", "resize 32 bilinear, crop 32"),
        ("attacked", "reconstructed", "crop 32"),
        ("attacked", "advbn", "crop 32"),
    }
    assert all(row["present"]["classes"] == len(report["classes"]) for row in report["rows"])


def test_originals_equal_a_plain_loop_to_the_last_sample(reported: Path, made: Path, shared_data: Path) -> None:
    """Nothing but tarfile, Pillow, torchvision's transforms and the class table."""
    table = [line.split("\t") for line in (shared_data / "imagenet-classes.tsv").read_text().splitlines()[1:]]
    index = {wnid: int(number) for number, wnid, *_ in table}
    network = load_model(str(made / "unseen.safetensors")).module.double()
    prepare = transforms.Compose([transforms.Resize(128), transforms.CenterCrop(112), transforms.PILToTensor()])
    expected, labels = {}, {}
    with tarfile.open(shared_data / TAR) as file, torch.no_grad():
        for member in file:
            if not member.name.endswith(".JPEG"):
                continue
            content = file.extractfile(member).read()  # type: ignore[union-attr]
            image = prepare(Image.open(io.BytesIO(content)).convert("RGB")).double() / 255
            wnid, name = member.name.split("/")[-2:]
            key = name.removesuffix(".JPEG").replace("'", "_")
            expected[key] = network(image[None])[0].topk(5).indices.tolist()
            labels[key] = index[wnid]
    with h5py.File(reported / "predictions.h5") as file:
        keys = [key.decode() for key in file["data/original/key"]]
        found = dict(zip(keys, file["scores/original/unseen/all/classes"][()].tolist(), strict=True))
        assert dict(zip(keys, file["data/original/label"][()].tolist(), strict=True)) == labels
    assert found == expected
    rows = json.loads((reported / "report.json").read_text())["rows"]
    (row,) = (row for row in rows if (row["model"], row["data"]) == ("unseen", "original"))
    assert row["top5"] == sum(labels[key] in expected[key] for key in keys) / 500
