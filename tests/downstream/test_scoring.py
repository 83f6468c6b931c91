"""Scores equal a plain loop over plain torchvision, to the last sample."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

from basics.compute import choose_compute
from basics.errors import UserError, WorkError
from downstream.predictions import Scored
from downstream.scoring import ScoringConfig, columns_of, predict, require_fitting, wanted_score
from downstream.testset import TestSet, open_test_set
from networks.classifiers import Classifier, build_network, save_classifier
from networks.specs import load_model
from sources.base import ClassMap, ImageRecord
from sources.classes import imagenet_index
from sources.decode import pixels_of
from tests.support import WIDTH, advbn_gen, image_folder, seeded, tiny_classifier
from tests.trio import SHOWN, Trio

COMPUTE = choose_compute("cpu", "fp64")
MEAN_STD = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def scored(data: TestSet, specs: dict[str, str], config: ScoringConfig | None = None) -> list[Scored]:
    models = {label: load_model(spec) for label, spec in specs.items()}
    rows = [(wanted_score(label, model, data, COMPUTE).row, model) for label, model in models.items()]
    return list(predict(rows, data, COMPUTE, config or ScoringConfig(batch_size=7)).scored)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain torchvision checkpoint with 1,000 outputs whose predictions for ImageNet's wnids are random."""
    path = tmp_path_factory.mktemp("checkpoint") / "resnet18.pth"
    with seeded(0):
        network = resnet18()
    torch.save(network.state_dict(), path)
    return path


def theirs(checkpoint: Path) -> torch.nn.Module:
    network: torch.nn.Module = resnet18()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    network.double().eval()
    return network


@pytest.mark.slow
def test_originals_equal_a_plain_loop(tmp_path: Path, checkpoint: Path) -> None:
    folder = image_folder(tmp_path / "val", per_class=4, side=300)
    (found,) = scored(open_test_set("val", str(folder)), {"m": f"resnet18={checkpoint}"})
    prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()])
    data, network = ImageFolder(str(folder), prepare), theirs(checkpoint)
    labels = [imagenet_index()[data.classes[label]] for _, label in data.samples]
    present = sorted(set(labels))
    predicted, chances, predicted_present = [], [], []
    with torch.no_grad():
        for image, _ in data:
            logits = network(MEAN_STD(image.double() / 255)[None])[0]
            order = logits.argsort(descending=True)
            predicted.append(order[:5].tolist())
            chances.append((logits.exp() / logits.exp().sum())[order[:5]])
            predicted_present.append([int(each) for each in order if int(each) in present])
    assert found.predictions["all"].classes_NK.tolist() == predicted
    assert np.allclose(found.predictions["all"].probabilities_NK, torch.stack(chances).numpy(), rtol=1e-5)
    assert found.predictions["present"].classes_NK.tolist() == predicted_present
    correct = [label == best[0] for label, best in zip(labels, predicted, strict=True)]
    correct5 = [label in best for label, best in zip(labels, predicted, strict=True)]
    correct_present = [label == best[0] for label, best in zip(labels, predicted_present, strict=True)]
    assert (found.row["n"], found.row["top1"], found.row["top5"]) == (12, np.mean(correct), np.mean(correct5))
    assert found.row["present"] == {"classes": 3, "top1": np.mean(correct_present), "top5": 1.0}
    assert found.row["transform"] == "resize 256 bilinear, crop 224"


@pytest.mark.slow
def test_shards_equal_a_plain_loop(trio: Trio) -> None:
    """Plain tarfile and Pillow; models of another size than the shards resize them, as any image."""
    (found,) = scored(open_test_set("advbn", str(trio.advbn)), {"m": str(trio.attacked)})
    model = load_model(str(trio.attacked)).module.double()
    prepare = transforms.Compose([transforms.Resize(SHOWN), transforms.CenterCrop(SHOWN), transforms.PILToTensor()])
    predicted, labels = [], []
    for tar in sorted(trio.advbn.glob("*.tar")):
        with tarfile.open(tar) as file, torch.no_grad():
            for member in file:
                content = file.extractfile(member).read()  # type: ignore[union-attr]
                if member.name.endswith(".png"):
                    image = prepare(Image.open(io.BytesIO(content)).convert("RGB"))
                    predicted.append(int(model(image[None].double() / 255).argmax()))
                if member.name.endswith(".cls"):
                    labels.append(int(content))
    assert found.predictions["all"].classes_NK[:, 0].tolist() == predicted
    assert found.row["top1"] == np.mean([a == b for a, b in zip(predicted, labels, strict=True)])


def test_stored_images_are_cropped_and_not_resized(trio: Trio, tmp_path: Path) -> None:
    data = open_test_set("advbn", str(trio.advbn))
    stored = 32
    own = load_model(str(trio.attacked)).view
    assert data.view(own) == own  # larger than 32 px: resized like any image
    for crop, resize, expected in ((28, 32, None), (28, 36, None), (28, 30, 30), (40, 48, 48)):
        view = data.view(own.__class__(crop=crop, resize=resize))
        assert (view.crop, view.resize) == (crop, expected), stored
    folder = open_test_set("val", str(image_folder(tmp_path / "val")))
    assert folder.view(own) == own


@pytest.mark.slow
def test_loaders_see_every_sample_once_and_change_nothing(trio: Trio) -> None:
    data = open_test_set("advbn", str(trio.advbn))
    alone, shared = (
        scored(data, {"m": str(trio.unseen)}, ScoringConfig(batch_size=5, loaders=loaders))[0] for loaders in (0, 2)
    )
    assert np.array_equal(alone.predictions["all"].classes_NK, shared.predictions["all"].classes_NK)
    assert alone.row["n"] == shared.row["n"] == 48


@pytest.mark.slow
def test_many_models_in_one_pass(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_test_set("advbn", str(trio.advbn))
    reads: list[str] = []
    read = type(data.source).read

    def counted(source: object, record: ImageRecord) -> bytes:
        reads.append(record.name)
        return read(source, record)  # type: ignore[arg-type]

    monkeypatch.setattr(type(data.source), "read", counted)
    both = scored(data, {"a": str(trio.attacked), "b": str(trio.unseen)})
    assert sorted(reads) == sorted(record.name for record in data.records)
    (alone,) = scored(data, {"b": str(trio.unseen)})
    assert np.array_equal(both[1].predictions["all"].classes_NK, alone.predictions["all"].classes_NK)


@pytest.mark.slow
def test_fewer_classes_than_five(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "val", classes=("a", "b", "c"), per_class=3)
    (found,) = scored(open_test_set("val", str(folder)), {"m": str(tiny_classifier(tmp_path / "c.safetensors", 3))})
    assert found.predictions["all"].classes_NK.shape == (9, 3)
    assert found.row["top5"] == 1.0
    assert "present" not in found.row
    assert np.allclose(found.predictions["all"].probabilities_NK.sum(1), 1)


@pytest.mark.slow
def test_a_model_of_other_classes_is_refused(trio: Trio, tmp_path: Path) -> None:
    data = open_test_set("advbn", str(trio.advbn))
    model = load_model(str(tiny_classifier(tmp_path / "c.safetensors", 12)))
    with pytest.raises(UserError, match=r"m has 12 classes, but the data set advbn .* has 1000"):
        require_fitting("m", model, data)


class Twice(torch.utils.data.Sampler[int]):
    def __init__(self, *_: object) -> None:
        self.positions = [0, 1, 1, 2]

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)


@pytest.mark.slow
def test_a_sample_seen_twice_is_an_error(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_test_set("advbn", str(trio.advbn))
    monkeypatch.setattr("torch.utils.data.dataloader.SequentialSampler", Twice)
    with pytest.raises(WorkError, match=r"came twice|were seen"):
        scored(data, {"m": str(trio.unseen)})


@pytest.mark.slow
def test_outputs_that_are_no_numbers_are_an_error(trio: Trio) -> None:
    data = open_test_set("advbn", str(trio.advbn))
    model = load_model(str(trio.unseen))
    for weight in model.module.parameters():
        weight.fill_(float("nan"))
    with pytest.raises(WorkError, match="outputs that are not numbers"):
        predict([(wanted_score("m", model, data, COMPUTE).row, model)], data, COMPUTE, ScoringConfig())


@pytest.mark.parametrize(("field", "value"), [("batch_size", 0), ("loaders", -1)])
def test_impossible_settings_are_refused(field: str, value: int) -> None:
    changed: dict[str, Any] = {field: value}
    with pytest.raises(UserError, match=str(value)):
        replace(ScoringConfig(), **changed)


def with_names(path: Path, names: Sequence[str], seed: int = 1) -> Path:
    """A network of some of ImageNet's classes, in an order of its own."""
    with seeded(seed):
        network = build_network("resnet18", len(names), WIDTH)
    classes = ClassMap(names=tuple(names), imagenet=False)
    save_classifier(path, "resnet18", network, classes, WIDTH, image_size=32)
    return path


@pytest.mark.slow
def test_a_model_of_some_of_imagenets_classes_is_scored_on_their_images(tmp_path: Path) -> None:
    names = ("n01491361", "n01440764", "n01494475", "n01443537")
    folder = image_folder(tmp_path / "val", per_class=6, classes=names[:3])
    data = open_test_set("val", str(folder))
    path = with_names(tmp_path / "some.safetensors", names)
    model = load_model(str(path))
    (found,) = scored(data, {"m": str(path)})
    index = [imagenet_index()[name] for name in names]
    correct, among = 0, 0
    for record in data.records:
        image = Image.open(folder / record.name).convert("RGB")
        pixels = pixels_of(image, data.view(model.view), record.name)[None].double() / 255
        with torch.no_grad():
            logits = load_model(str(path)).module.double()(pixels)[0]
        correct += index[int(logits.argmax())] == record.label
        among += index[int(logits[:3].argmax())] == record.label
    assert found.row["top1"] == correct / 18
    assert found.row["top5"] == 1
    assert found.row["present"] == {"classes": 3, "top1": among / 18, "top5": 1}
    assert found.row["decision"] == "4 of ImageNet's classes, by their wnids"
    strange = open_test_set(
        "other", str(image_folder(tmp_path / "more", per_class=1, classes=("n01440764", "n02979186")))
    )
    with pytest.raises(UserError, match=r"that the model m of 4 classes does not have \(1, such as n02979186\)"):
        require_fitting("m", model, strange)


@pytest.mark.slow
def test_decisions_can_be_restricted_to_the_classes_that_occur(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "val", per_class=8)
    path = tiny_classifier(tmp_path / "m.safetensors", 1000, imagenet=True, image_size=32)
    words = ("score", "--model", path, "--data", f"val={folder}", "--json", "--out")
    free, held = (
        advbn_gen(*words, tmp_path / name, *more) for name, more in (("a", ()), ("b", ("--restrict-classes",)))
    )
    (before,), (after,) = (json.loads(done.out)["results"] for done in (free, held))
    classes = before["present"]["classes"]
    assert (after["top1"], after["top5"]) == (before["present"]["top1"], before["present"]["top5"])
    assert after["top1"] > before["top1"]
    assert "present" not in after
    assert after["decision"] == f"among the {classes} classes that occur"
    again = advbn_gen(*words, tmp_path / "a", "--restrict-classes")
    assert (again.code, "decision" in again.err) == (2, True)


@pytest.mark.slow
def test_a_row_identifies_model_data_and_machine(trio: Trio) -> None:
    data = open_test_set("advbn", str(trio.advbn))
    model: Classifier = load_model(str(trio.attacked))
    row = wanted_score("m", model, data, COMPUTE).row
    manifest = json.loads((trio.advbn / "manifest.json").read_text())
    assert row["data_fingerprint"] == manifest["fingerprint"]
    assert row["weights_sha256"] == manifest["identity"]["classifier"]["sha256"]
    assert (row["precision"], row["device"], row["samples"]) == ("fp64", "cpu", 48)
    assert row["software"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert row["pair"] != wanted_score("m", load_model(str(trio.unseen)), data, COMPUTE).row["pair"]
    columns = columns_of(data)
    assert columns.keys == [sample["key"] for sample in json_of(trio.advbn)]
    assert columns.label_N.tolist() == [sample["label"] for sample in json_of(trio.advbn)]


def json_of(folder: Path) -> list[dict[str, object]]:
    found = []
    for tar in sorted(folder.glob("*.tar")):
        with tarfile.open(tar) as file:
            found += [
                json.loads(file.extractfile(member).read())  # type: ignore[union-attr]
                for member in file
                if member.name.endswith(".json")
            ]
    return found
