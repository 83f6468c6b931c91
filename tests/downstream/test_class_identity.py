"""Classes are compared by their names wherever a network meets labels; where one of them has none, it is said."""

import io
import json
import tarfile
from pathlib import Path

import h5py
import pytest
import timm
import torch
from PIL import Image

from networks.classifiers import build_network, save_classifier
from networks.specs import load_model
from sources.base import ClassMap
from sources.classes import imagenet_map
from tests.support import WIDTH, WNIDS, advbn_gen, image_folder, refused, seeded, tiny_autoencoder, tiny_classifier

BEASTS = ("bird", "cat", "dog")


def network_of(path: Path, *names: str) -> Path:
    """A small classifier's file that says which class each output is."""
    with seeded(1):
        network = build_network("resnet18", len(names), WIDTH)
    save_classifier(path, "resnet18", network, ClassMap(names=names, imagenet=False), WIDTH, image_size=32)
    return path


@pytest.fixture
def beasts(tmp_path: Path) -> Path:
    return network_of(tmp_path / "beasts.safetensors", *BEASTS)


def score(model: object, data: Path, out: Path) -> list[object]:
    return ["score", "--model", model, "--data", f"d={data}", "--out", out]


def test_labels_of_other_classes_are_refused(beasts: Path, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", per_class=1, classes=("ant", "bird", "dog"))
    message = refused(*score(beasts, data, tmp_path / "out"))
    assert "The class 0 is bird for the model beasts and ant for the data set d" in message
    assert "give a model of these classes" in message
    assert not (tmp_path / "out").exists()


def test_the_same_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    model = network_of(tmp_path / "turned.safetensors", "dog", "cat", "bird")
    data = image_folder(tmp_path / "data", per_class=1, classes=BEASTS)
    assert "the same classes in another order" in refused(*score(model, data, tmp_path / "out"))


def test_the_same_names_need_no_word(beasts: Path, tmp_path: Path) -> None:
    done = advbn_gen(*score(beasts, image_folder(tmp_path / "data", per_class=1, classes=BEASTS), tmp_path / "out"))
    assert done.code == 0, done.err
    assert "does not say which classes" not in done.err


def test_a_network_without_names_is_scored_with_a_notice(tmp_path: Path) -> None:
    model = tiny_classifier(tmp_path / "old.safetensors", 3, image_size=32)
    data = [image_folder(tmp_path / name, per_class=1, classes=BEASTS) for name in ("one", "two")]
    sets = [f"{folder.name}={folder}" for folder in data]
    done = advbn_gen("score", "--model", model, "--data", *sets, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "The model old does not say which classes it has" in done.err


def test_the_other_trainers_and_the_main_job_compare_too(beasts: Path, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", per_class=2, classes=("ant", "bird", "dog"))
    tuning = ["finetune", "--arch", "resnet18", "--init", beasts, "--source", data, "--out", tmp_path / "tuned"]
    assert "The class 0 is bird for the resnet18 to start from" in refused(*tuning)
    autoencoder = tiny_autoencoder(tmp_path / "autoencoder.safetensors")
    making = [
        "imagenet-advbn", "--encoder", "vgg", "--source", data, "--autoencoder", autoencoder, "--classifier", beasts,
        "--image-size", 32, "--out", tmp_path / "made",
    ]  # fmt: skip
    assert "The class 0 is bird for the classifier resnet18" in refused(*making)


@pytest.mark.slow
def test_a_report_on_the_gap_compares_its_data_sets(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", per_class=1, classes=BEASTS)
    weights = tiny_classifier(tmp_path / "three.safetensors", 3, image_size=32)
    made = advbn_gen(
        "imagenet-advbn", "--encoder", "vgg", "--source", data, "--image-size", 32, "--steps", 1, "--reconstructed",
        "--autoencoder", tiny_autoencoder(tmp_path / "autoencoder.safetensors"), "--classifier", weights,
        "--out", tmp_path / "imagenet-advbn-vgg",
    )  # fmt: skip
    assert made.code == 0, made.err
    (data / "cat").rename(data / "cow")
    message = refused(
        "report", "gap", "--original", data, "--reconstructed", tmp_path / "imagenet-reconstructed-vgg",
        "--advbn", tmp_path / "imagenet-advbn-vgg", "--model", weights, "--out", tmp_path / "gap",
    )  # fmt: skip
    assert "The class 1 is cow for --original" in message


@pytest.mark.slow
def test_what_is_trained_here_holds_its_classes(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", per_class=4, classes=BEASTS)
    common = ["--source", data, "--image-size", 32, "--batch-size", 4, "--epochs", 1]
    trained = advbn_gen(
        "train-classifier", "--arch", "resnet18", "--width", 1 / 16, *common, "--out", tmp_path / "trained"
    )
    assert trained.code == 0, trained.err
    assert load_model(str(tmp_path / "trained")).outputs.names == BEASTS
    tuned = advbn_gen(
        "finetune", "--arch", "resnet18", "--init", tmp_path / "trained", *common, "--steps", 1, "--out",
        tmp_path / "tuned",
    )  # fmt: skip
    assert tuned.code == 0, tuned.err
    assert load_model(str(tmp_path / "tuned/auxiliary.safetensors")).outputs.names == BEASTS


def test_tuning_a_network_without_names_gives_it_the_labels_names(tmp_path: Path) -> None:
    start = tiny_classifier(tmp_path / "start.safetensors", 3, image_size=32)
    data = image_folder(tmp_path / "data", per_class=4, classes=BEASTS)
    tuned = advbn_gen(
        "finetune", "--arch", "resnet18", "--init", start, "--source", data, "--image-size", 32, "--batch-size", 4,
        "--epochs", 1, "--steps", 1, "--out", tmp_path / "tuned",
    )  # fmt: skip
    assert tuned.code == 0, tuned.err
    assert "does not say which classes it has" in tuned.err
    assert load_model(str(tmp_path / "tuned/main.safetensors")).outputs.names == BEASTS


def test_folders_of_numbers_are_labelled_by_their_numbers(tmp_path: Path) -> None:
    """As in ImageNet-V2, whose folders 0 to 999 have another order as text."""
    for number in range(12):
        (tmp_path / f"data/{number}").mkdir(parents=True)
        Image.new("RGB", (40, 40), (20 * number, 0, 0)).save(tmp_path / f"data/{number}/x.png")
    model = tiny_classifier(tmp_path / "two.safetensors", 12, answers=(2,), image_size=32)
    done = advbn_gen(*score(model, tmp_path / "data", tmp_path / "out"))
    assert done.code == 0, done.err
    assert "are numbers: the label of each is its number" in done.err
    row = json.loads((tmp_path / "out/results.jsonl").read_text())
    assert (row["classes"], row["top1"]) == (12, 1 / 12)
    with h5py.File(tmp_path / "out/predictions.h5") as file:
        labels = dict(zip(file["data/d/key"].asstr()[()], file["data/d/label"][()].tolist(), strict=True))
    assert labels["2_x"] == 2


def test_shards_that_do_not_say_what_their_labels_mean(tmp_path: Path) -> None:
    """As timm's: the sentence names the file that says it, and with that file they are read."""
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards/val-00.tar", "w") as tar:
        for number in range(4):
            picture = io.BytesIO()
            Image.new("RGB", (40, 40), (60 * number, 0, 0)).save(picture, "PNG")
            for name, content in ((f"{number}.png", picture.getvalue()), (f"{number}.cls", str(number % 3).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    model = tmp_path / "imagenet.safetensors"
    with seeded(1):
        save_classifier(model, "resnet18", build_network("resnet18", 1000, WIDTH), imagenet_map(), WIDTH, image_size=32)
    message = refused(*score(model, tmp_path / "shards", tmp_path / "out"))
    declaration = message.partition("manifest.json with ")[2].partition(" beside")[0]
    (tmp_path / "shards/manifest.json").write_text(declaration)
    done = advbn_gen(*score(model, tmp_path / "shards", tmp_path / "out"))
    assert done.code == 0, done.err
    assert "does not say which classes" not in done.err
    assert json.loads((tmp_path / "out/results.jsonl").read_text())["n"] == 4


@pytest.fixture
def timm_weights(tmp_path: Path) -> Path:
    with seeded(0):
        network = timm.create_model("resnet10t", num_classes=3)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.mark.slow
@pytest.mark.parametrize("as_pair", [False, True])
def test_the_attacked_classifier_is_any_spec(as_pair: bool, timm_weights: Path, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", per_class=2, classes=BEASTS)
    autoencoder = tiny_autoencoder(tmp_path / "autoencoder.safetensors")
    pair = ["--classifier", "timm:resnet10t", "--classifier-weights", timm_weights]
    done = advbn_gen(
        "imagenet-advbn", "--encoder", "vgg", "--source", data, "--autoencoder", autoencoder,
        *(pair if as_pair else ["--classifier", f"timm:resnet10t={timm_weights}"]), "--image-size", 32, "--steps", 1,
        "--out", tmp_path / "made",
    )  # fmt: skip
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "made/manifest.json").read_text())
    assert manifest["identity"]["classifier"]["name"] == "timm:resnet10t"
    assert manifest["config"]["classifier_weights"] == str(timm_weights)
    assert advbn_gen("verify", tmp_path / "made").code == 0


def pngs(folder: Path) -> list[bytes]:
    with tarfile.open(next(folder.glob("*.tar"))) as tar:
        return [tar.extractfile(each).read() for each in tar if each.name.endswith(".png")]  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_network_of_some_of_imagenet_s_classes_is_attacked_as_on_these_classes_alone(
    beasts: Path, tmp_path: Path
) -> None:
    """The same network on the same images, whose labels are once three of the 1,000 and once 0 to 2."""
    some = network_of(tmp_path / "some.safetensors", *WNIDS)
    autoencoder = tiny_autoencoder(tmp_path / "autoencoder.safetensors")

    def words(data: Path, classifier: Path, out: str) -> list[object]:
        return [
            "imagenet-advbn", "--encoder", "vgg", "--source", data, "--autoencoder", autoencoder, "--classifier",
            classifier, "--image-size", 32, "--steps", 3, "--threads", 1, "--out", tmp_path / out,
        ]  # fmt: skip

    images = {classes: image_folder(tmp_path / classes[0], per_class=3, classes=classes) for classes in (WNIDS, BEASTS)}
    for classes, network, out in ((WNIDS, some, "made"), (BEASTS, beasts, "alone")):
        done = advbn_gen(*words(images[classes], network, out))
        assert done.code == 0, done.err
    assert pngs(tmp_path / "made") == pngs(tmp_path / "alone")
    with h5py.File(tmp_path / "made/perturbations.h5") as made, h5py.File(tmp_path / "alone/perturbations.h5") as alone:
        assert all((made[name][:] == alone[name][:]).all() for name in ("loss", "delta_mean", "delta_std"))
    manifest = json.loads((tmp_path / "made/manifest.json").read_text())
    assert manifest["classes"]["imagenet"]
    image_folder(images[WNIDS] / "more", per_class=1, classes=("n01443537",))
    (images[WNIDS] / "more/n01443537").rename(images[WNIDS] / "n01443537")
    (images[WNIDS] / "more").rmdir()
    message = refused(*words(images[WNIDS], some, "other"))
    assert "has images of classes that the classifier resnet18 does not have (1, such as n01443537)" in message


@pytest.mark.slow
def test_fresh_weights_have_the_classes_of_the_images(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", per_class=1, classes=BEASTS)
    done = advbn_gen(
        "imagenet-advbn", "--encoder", "vgg", "--source", data, "--autoencoder",
        tiny_autoencoder(tmp_path / "autoencoder.safetensors"), "--classifier", "squeezenet1_1", "--classifier-weights",
        "seed:0", "--image-size", 32, "--steps", 1, "--out", tmp_path / "made",
    )  # fmt: skip
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "made/manifest.json").read_text())
    assert manifest["identity"]["classifier"]["classes"] == 3


def test_weights_that_are_named_twice_are_refused(timm_weights: Path, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", per_class=2, classes=BEASTS)
    message = refused(
        "imagenet-advbn", "--encoder", "vgg", "--source", data, "--classifier", f"timm:resnet10t={timm_weights}",
        "--classifier-weights", timm_weights, "--out", tmp_path / "made",
    )  # fmt: skip
    assert "names its weights; leave out --classifier-weights" in message
