"""`train-classifier` and `import-classifier` through the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18, shufflenet_v2_x0_5, squeezenet1_1

from downstream.predictions import ALL, PredictionFile
from networks.normalise import PIXELS
from networks.specs import load_model
from sources.classes import imagenet_map
from sources.decode import View
from tests.commands.test_bad_input import pickle_with_code
from tests.support import WNIDS, advbn_gen, image_folder, refused, seeded, tiny_autoencoder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "source", per_class=6, classes=("a", "b", "c"))


def words(images: Path, out: Path, **changed: object) -> list[object]:
    options: dict[str, object] = {
        "arch": "resnet18", "source": images, "val": images, "image-size": 32, "batch-size": 6, "epochs": 2,
        "device": "cpu", "out": out,
    }  # fmt: skip
    options |= {name.replace("_", "-"): value for name, value in changed.items()}
    return ["train-classifier", *(word for name, value in options.items() for word in (f"--{name}", value)), "--json"]


@pytest.mark.slow
def test_it_leaves_a_plain_classifier_and_goes_on(source: Path, tmp_path: Path) -> None:
    done = advbn_gen(*words(source, tmp_path / "run"))
    assert done.code == 0, done.err
    plain = resnet18(num_classes=3)
    plain.load_state_dict(load_file(done.result["classifier"]))
    found = load_model(str(tmp_path / "run"))
    assert (found.classes, found.view.crop) == (3, 32)
    again = advbn_gen(*words(source, tmp_path / "longer", epochs=1))
    assert again.code == 0, again.err
    assert "holds another run" in refused(*words(source, tmp_path / "longer", epochs=2))
    mine = advbn_gen(*words(source, tmp_path / "run"))
    assert mine.result == done.result


@pytest.mark.slow
def test_a_network_of_timm_is_one_of_its_own(source: Path, tmp_path: Path) -> None:
    done = advbn_gen(*words(source, tmp_path / "run", arch="timm:test_resnet", epochs=1))
    assert done.code == 0, done.err
    plain: Any = timm.create_model("test_resnet", num_classes=3).eval()
    plain.load_state_dict(load_file(done.result["classifier"]))
    found = load_model(str(tmp_path / "run"))
    assert (found.name, found.classes, found.view.crop, found.outputs.names) == (
        "timm:test_resnet", 3, 32, ("a", "b", "c"),
    )  # fmt: skip
    mean, std = (torch.tensor(plain.default_cfg[name])[:, None, None] for name in ("mean", "std"))
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(found.module(image), plain((image - mean) / std), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_does_not_go_on_over_images_that_were_made_anew(tmp_path: Path) -> None:
    train, val = (image_folder(tmp_path / name, per_class=6, classes=("a", "b", "c")) for name in ("train", "val"))
    small = words(train, tmp_path / "run", val=val, epochs=1, width=0.25)
    assert advbn_gen(*small).code == 0
    shutil.rmtree(val)
    image_folder(val, per_class=6, classes=("a", "b", "c"), seed=1)
    assert "holds a run on other held-out images" in refused(*small)
    shutil.rmtree(train)
    image_folder(train, per_class=6, classes=("a", "b", "c"), seed=1)
    assert "holds a run on other training images" in refused(*small)
    assert advbn_gen(*small, "--overwrite").code == 0


@pytest.mark.slow
def test_it_learns(source: Path, tmp_path: Path) -> None:
    """With noise for images, learning shows in the loss on the training images."""
    done = advbn_gen(*words(source, tmp_path / "run", epochs=12, width=0.25, smallest_crop=1))
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert load_model(str(tmp_path / "run")).width == 0.25


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"arch": "resnet7"}, "no classifier 'resnet7'"),
        ({"arch": "timm:resnet7"}, "no timm model 'resnet7'"),
        ({"arch": "timm:test_resnet", "width": 0.5}, "cannot be made narrower"),
        ({"batch_size": 1}, "needs two to learn from"),
        ({"smallest_crop": 2}, "smallest crop is 2 of an image"),
        ({"limit": 3}, "fewer than one batch of 6"),
        ({"source": "/nowhere"}, "/nowhere"),
        ({"width": 0}, "width"),
        ({"arch": "vit_b_16"}, "cannot be shown images of 32 px"),
    ],
)
def test_bad_input_is_refused(source: Path, tmp_path: Path, changed: dict[str, object], said: str) -> None:
    assert said in refused(*words(source, tmp_path / "out", **changed))
    assert not (tmp_path / "out").exists()


def test_held_out_images_of_other_classes_are_refused(source: Path, tmp_path: Path) -> None:
    other = image_folder(tmp_path / "other", classes=("a", "b"))
    assert "have other classes" in refused(*words(source, tmp_path / "out", val=other))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of somebody's training, of three of ImageNet's classes."""
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    with seeded(3):
        torch.save(squeezenet1_1(num_classes=len(WNIDS)).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, of a network with batch norm."""
    path = tmp_path_factory.mktemp("weights") / "normed.pth"
    with seeded(3):
        torch.save(shufflenet_v2_x0_5(num_classes=len(WNIDS)).state_dict(), path)
    return path


def import_words(weights: Path, images: Path, to: Path, *more: object, **changed: object) -> list[object]:
    options: dict[str, object] = {
        "arch": "squeezenet1_1", "weights": weights, "classes": images, "image-size": 32, "out": to,
    }  # fmt: skip
    options |= {name.replace("_", "-"): value for name, value in changed.items()}
    return ["import-classifier", *(word for name, value in options.items() for word in (f"--{name}", value)), *more]


@pytest.mark.slow
def test_a_training_of_ones_own_is_scored_as_it_was_trained(mine: Path, tmp_path: Path) -> None:
    """By a loop of plain PyTorch, on images in folders of wnids; the state dict alone is refused."""
    data, bare = image_folder(tmp_path / "images", per_class=4, classes=WNIDS), f"squeezenet1_1={mine}"
    scoring = ["score", "--data", f"val={data}", "--out", tmp_path / "scores", "--json", "--model"]
    message = refused(*scoring, bare)
    assert "has 3 classes, but the data set val" in message
    assert "if its classes are some of ImageNet's, name these by their wnids with `advbn-gen import-class" in message

    done = advbn_gen(*import_words(mine, data, tmp_path / "mine.safetensors", "--no-normalisation", "--json"))
    assert done.code == 0, done.err
    assert done.result["transform"] == "resize 32 bilinear, crop 32"
    assert done.result["classes"] == list(WNIDS)
    scored = advbn_gen(*scoring, tmp_path / "mine.safetensors")
    assert scored.code == 0, scored.err
    assert "does not say" not in scored.err
    (row,) = scored.result["results"]
    assert row["colours"] == {"mean": [0, 0, 0], "std": [1, 1, 1]}

    prepare = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor()])
    pictures, labels = zip(*ImageFolder(str(data), prepare), strict=True)
    network = squeezenet1_1(num_classes=len(WNIDS)).eval()
    network.load_state_dict(torch.load(mine, weights_only=True))
    with torch.no_grad():
        logits = network(torch.stack(pictures))
    predictions = PredictionFile(tmp_path / "scores/predictions.h5").scored("val", "mine").predictions[ALL]
    names = [imagenet_map().names[label] for label in predictions.classes_NK[:, 0]]
    found = logits.argmax(1)
    assert names == [WNIDS[label] for label in found]
    assert torch.allclose(torch.tensor(predictions.probabilities_NK[:, 0]), logits.softmax(1).amax(1), rtol=1e-4)
    assert row["top1"] == float((found == torch.tensor(labels)).double().mean())


@pytest.mark.slow
def test_what_is_assumed_of_a_state_dict_is_said_once(mine: Path, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "images", per_class=1, classes=("a", "b", "c"))
    done = advbn_gen(
        "score", "--model", f"squeezenet1_1={mine}", "--data", f"one={data}", f"two={data}", "--loaders", 1, "--out",
        tmp_path / "scores", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    said = (
        f"squeezenet1_1={mine} does not say how images are prepared: 224 px from 256 px and ImageNet's colours are "
        "taken; `advbn-gen import-classifier` writes a file that says so.\n"
    )
    assert done.err.count("does not say how images are prepared") == done.err.count(said) == 1
    assert {tuple(row["colours"]["mean"]) for row in done.result["results"]} == {(0.485, 0.456, 0.406)}


@pytest.mark.slow
def test_other_colours_are_another_result(mine: Path, tmp_path: Path) -> None:
    data, out = image_folder(tmp_path / "images", per_class=1, classes=WNIDS), tmp_path / "mine.safetensors"
    scoring = ["score", "--model", out, "--data", f"d={data}", "--out", tmp_path / "scores"]
    colours = ("--mean", 0.5, 0.5, 0.5, "--std", 0.5, 0.5, 0.5)
    for more in (("--no-normalisation",), (*colours, "--overwrite")):
        done = advbn_gen(*import_words(mine, data, out, *more))
        assert done.code == 0, done.err
        if "--overwrite" not in more:
            assert advbn_gen(*scoring).code == 0
    assert "another result of mine on d" in refused(*scoring)


@pytest.mark.parametrize(
    ("more", "changed", "message"),
    [
        ((), {"out": "mine.pth"}, "does not end in .safetensors"),
        (("--mean", 0.5, 0.5, 0.5), {}, "--mean is given without --std; give both, or --no-normalisation"),
        (("--std", 0.5, 0.5, 0.5), {}, "--std is given without --mean"),
        (("--no-normalisation", "--std", 0.5, 0.5, 0.5), {}, "leave out --mean and --std"),
        (("--mean", 124, 116, 104, "--std", 58, 57, 57), {}, "give mean and std of pixels between 0 and 1"),
        (("--mean", 0.5, 0.5, "--std", 0.5), {}, "mean of colours has 2 values; give one each for red, green and blue"),
        ((), {"resize": 30}, "less than the 32 px"),
        ((), {"arch": "resnet19"}, "There is no classifier 'resnet19'"),
        ((), {"arch": "timm:nothing"}, "There is no timm model 'nothing'"),
        ((), {"arch": "vgg11"}, "do not fit the classifier vgg11"),
        ((), {"classes": "absent"}, "--classes absent cannot be read"),
    ],
)
def test_a_bad_import_is_refused(
    more: tuple[object, ...], changed: dict[str, object], message: str, mine: Path, tmp_path: Path
) -> None:
    data, out = image_folder(tmp_path / "images", per_class=1, classes=WNIDS), tmp_path / "mine.safetensors"
    assert message in refused(*import_words(mine, data, out, *more, **changed))
    assert not out.exists()


def test_an_interpolation_is_given_and_one_number_stands_for_three_colours(mine: Path, tmp_path: Path) -> None:
    data, out = image_folder(tmp_path / "images", per_class=1, classes=WNIDS), tmp_path / "mine.safetensors"
    more = ("--mean", 0.5, "--std", 0.25, "--interpolation", "bicubic", "--json")
    done = advbn_gen(*import_words(mine, data, out, *more))
    assert done.code == 0, done.err
    assert done.result["colours"] == {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    assert load_model(str(out)).view == View(crop=32, resize=32, interpolation="bicubic")


@pytest.mark.slow
def test_the_interpolation_of_a_network_of_timm_is_not_assumed_silently(tmp_path: Path) -> None:
    data, out = image_folder(tmp_path / "images", per_class=1, classes=WNIDS), tmp_path / "mine.safetensors"
    torch.save(timm.create_model("test_resnet", num_classes=len(WNIDS)).state_dict(), tmp_path / "mine.pth")
    for more, said in ((("--interpolation", "bilinear"), 0), (("--overwrite",), 1)):
        done = advbn_gen(*import_words(tmp_path / "mine.pth", data, out, *more, arch="timm:test_resnet"))
        assert done.code == 0, done.err
        assert done.err.count("No interpolation was given: images are resized bilinearly") == said


def test_an_import_writes_over_nothing(mine: Path, tmp_path: Path) -> None:
    data, out = image_folder(tmp_path / "images", per_class=1, classes=WNIDS), tmp_path / "mine.safetensors"
    out.mkdir()
    assert "is a folder; give a file" in refused(*import_words(mine, data, out))
    out.rmdir()
    out.write_text("precious")
    assert "is there already" in refused(*import_words(mine, data, out))
    assert out.read_text() == "precious"


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    data, out = image_folder(tmp_path / "images", per_class=1, classes=WNIDS), tmp_path / "mine.safetensors"
    weights, trace = pickle_with_code(tmp_path / "mine.pth")
    assert "holds Python code besides weights and was not run" in refused(*import_words(weights, data, out))
    assert not trace.exists()


@pytest.mark.slow
def test_an_imported_network_is_attacked_and_tuned_with_its_colours(normed: Path, tmp_path: Path) -> None:
    data, out = image_folder(tmp_path / "images", per_class=3, classes=WNIDS), tmp_path / "mine.safetensors"
    assert advbn_gen(*import_words(normed, data, out, "--no-normalisation", arch="shufflenet_v2_x0_5")).code == 0
    making = [
        "imagenet-advbn", "--encoder", "vgg", "--source", data, "--image-size", 32, "--steps", 1, "--batch-size", 4,
        "--autoencoder", tiny_autoencoder(tmp_path / "autoencoder.safetensors"), "--classifier",
    ]  # fmt: skip
    for _ in range(2):  # the second time nothing is left to do
        made = advbn_gen(*making, out, "--out", tmp_path / "made")
        assert made.code == 0, made.err
    assert "does not say" not in made.err
    identity = json.loads((tmp_path / "made/manifest.json").read_text())["identity"]
    assert identity["classifier"]["colours"] == {"mean": [0, 0, 0], "std": [1, 1, 1]}
    message = refused(*making, f"shufflenet_v2_x0_5={normed}", "--out", tmp_path / "bare")
    assert "`advbn-gen import-classifier --classes`" in message

    tuned = advbn_gen(
        "finetune", "--arch", out, "--cut", "stage2", "--source", data, "--image-size", 32, "--batch-size", 4,
        "--epochs", 1, "--steps", 1, "--out", tmp_path / "tuned",
    )  # fmt: skip
    assert tuned.code == 0, tuned.err
    assert "does not say" not in tuned.err
    found = load_model(str(tmp_path / "tuned"))
    assert (found.mean_std, found.view) == (PIXELS, View(crop=32, resize=32))


@pytest.mark.slow
def test_images_against_classes_in_another_order_are_another_data_set(mine: Path, tmp_path: Path) -> None:
    data, out = image_folder(tmp_path / "images", per_class=1, classes=WNIDS), tmp_path / "mine.safetensors"
    names = tmp_path / "names.txt"
    making = [
        "imagenet-advbn", "--encoder", "vgg", "--source", data, "--image-size", 32, "--steps", 1, "--autoencoder",
        tiny_autoencoder(tmp_path / "autoencoder.safetensors"), "--classifier", out, "--out", tmp_path / "made",
    ]  # fmt: skip
    for classes in (WNIDS[::-1], WNIDS):
        names.write_text("\n".join(classes), encoding="utf-8")
        assert advbn_gen(*import_words(mine, names, out, "--no-normalisation", "--overwrite")).code == 0
        if classes != WNIDS:
            assert advbn_gen(*making).code == 0
    assert "class_order" in refused(*making)


@pytest.mark.slow
def test_other_commands_refuse_colours_that_they_do_not_prepare(normed: Path, tmp_path: Path) -> None:
    data, out = image_folder(tmp_path / "images", per_class=1, classes=WNIDS), tmp_path / "mine.safetensors"
    assert advbn_gen(*import_words(normed, data, out, "--no-normalisation", arch="shufflenet_v2_x0_5")).code == 0
    front = [
        "train-autoencoder", "--encoder", f"{out}@stage2", "--source", data, "--val", data, "--batch-size", 3,
        "--image-size", 32, "--out", tmp_path / "run",
    ]  # fmt: skip
    assert "go with colours of their own (mean 0 0 0, std 1 1 1)" in refused(*front)
    defence = [
        "abnn", "train", "--task", "cifar10", "--defence", "abnn", "--data", data, "--image-size", 32,
        "--substitute", out, "--batch-size", 3, "--out", tmp_path / "run",
    ]  # fmt: skip
    assert "which an ABNN does not prepare" in refused(*defence)
