"""Shape bias, and decisions among 16 classes, against naive loops and through the command line."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from downstream.cue_conflict import cue_conflict, texture_labels
from networks.specs import load_model
from sources.base import ImageRecord
from sources.sixteen import SIXTEEN
from tests.support import advbn_gen, image_folder, refused, tiny_classifier

NAMES = tuple(SIXTEEN)


def test_shape_bias_is_that_of_a_plain_count() -> None:
    dice = random.Random(0)
    cues = [(dice.randrange(5), dice.randrange(5), dice.randrange(5)) for _ in range(300)]
    conflicts = [(d, s, t) for d, s, t in cues if s != t]
    by_shape = sum(d == s for d, s, _ in conflicts)
    by_texture = sum(d == t for d, _, t in conflicts)
    found = cue_conflict(*(np.array(column, np.int32) for column in zip(*cues, strict=True)))
    assert (found.n, found.same) == (len(conflicts), 300 - len(conflicts))
    assert found.shape == by_shape / len(conflicts)
    assert found.to_json()["either"] == pytest.approx((by_shape + by_texture) / len(conflicts))
    assert found.shape_bias == by_shape / (by_shape + by_texture)


def test_a_bias_over_no_decision_is_none() -> None:
    ones, twos = np.ones(3, np.int32), np.full(3, 2, np.int32)
    assert cue_conflict(np.zeros(3, np.int32), ones, twos).shape_bias is None
    assert cue_conflict(ones, ones, ones).to_json() == {
        "n": 0, "same": 3, "shape": 0.0, "texture": 0.0, "shape_bias": None, "either": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat/cat1-dog12.png", "dog/dog3-dog4.png"], [1, 1]),
        (["cat/cat1-dog12.png", "dog/dog3.png"], None),
        (["cat/dog1-cat2.png"], None),
        (["cat/cat1-bird2.png"], None),
        ([], None),
    ],
)
def test_textures_are_read_from_names(names: list[str], expected: list[int] | None) -> None:
    records = [ImageRecord(name, ["cat", "dog"].index(name.split("/")[0])) for name in names]
    found = texture_labels(records, ["cat", "dog"])
    assert (None if found is None else found.tolist()) == expected


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images a shape, with textures of other classes and once of its own; noise, so that decisions differ."""
    root = tmp_path_factory.mktemp("cues") / "cue-conflict"
    dice = np.random.default_rng(0)
    for number, shape in enumerate(NAMES):
        (root / shape).mkdir(parents=True)
        for texture in (NAMES[(number + 1) % 16], NAMES[(3 * number + 5) % 16]):
            low = dice.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(low).resize((40, 40), Image.Resampling.BICUBIC).save(
                root / shape / f"{shape}1-{texture}2.png"
            )
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    answers = [group[0] for group in SIXTEEN.values()]
    folder = tmp_path_factory.mktemp("model")
    return tiny_classifier(folder / "classifier.safetensors", 1000, answers=answers, imagenet=True, image_size=32)


def decided(model: Path, images: Path) -> list[tuple[str, str, str]]:
    """Decision, shape and texture of each image by a naive loop in float64."""
    classifier = load_model(str(model))
    network = classifier.module.double()
    found = []
    for path in sorted(images.glob("*/*.png")):
        image = to_tensor(Image.open(path).resize((32, 32), Image.Resampling.BILINEAR))[None].double()
        with torch.no_grad():
            probability = network(image)[0].exp() / network(image)[0].exp().sum()
        means = {name: sum(float(probability[i]) for i in group) / len(group) for name, group in SIXTEEN.items()}
        shape, texture = (part.rstrip("0123456789") for part in path.stem.split("-"))
        found.append((max(means, key=lambda name: means[name]), shape, texture))
    return found


@pytest.mark.slow
def test_score_decides_by_mean_probability_and_states_the_bias(model: Path, images: Path, tmp_path: Path) -> None:
    done = advbn_gen("score", "--model", model, "--data", f"cues={images}", "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["results"]
    cues = decided(model, images)
    conflicts = [each for each in cues if each[1] != each[2]]
    by_shape, by_texture = (sum(each[0] == each[k] for each in conflicts) for k in (1, 2))
    assert len({each[0] for each in cues}) > 2
    assert by_shape
    assert by_texture
    assert row["classes"] == 16
    assert row["top1"] == sum(decision == shape for decision, shape, _ in cues) / len(cues)
    assert row["cue_conflict"]["shape_bias"] == by_shape / (by_shape + by_texture)
    assert row["cue_conflict"]["n"] == len(conflicts)
    assert row["decision"] == "mean probability of each of 16 classes"
    again = advbn_gen("score", "--model", model, "--data", f"cues={images}", "--out", tmp_path)
    assert f"shape bias {by_shape / (by_shape + by_texture):.1%} of" in again.out


def numbered(root: Path, count: int) -> Path:
    """ImageNet-V2 with an image in a few of its folders."""
    for label in range(count):
        (root / str(label)).mkdir(parents=True)
    for label in (2, 10, 999)[: 3 if count == 1000 else 2]:
        dice = np.random.default_rng(label)
        Image.fromarray(dice.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root / str(label) / "a.jpeg")
    return root


@pytest.mark.slow
def test_evaluate_takes_every_set_in_its_layout(model: Path, images: Path, tmp_path: Path) -> None:
    some = tmp_path / "r"
    for wnid in ("n01443537", "n01484850"):  # goldfish and great white shark: 1 and 2
        (some / wnid).mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(some / wnid / "art_1.jpg")
    words: list[Any] = [
        "evaluate", "--model", model, "--imagenet-v2", numbered(tmp_path / "v2", 1000), "--imagenet-r", some,
        "--imagenet-a", some, "--cue-conflict", images, "--silhouettes", images, "--edges", images,
        "--out", tmp_path / "out",
    ]  # fmt: skip
    done = advbn_gen(*words, "--json")
    assert done.code == 0, done.err
    rows = {row["data"]: row for row in json.loads(done.out)["results"]}
    assert rows.keys() == {"imagenet-v2", "imagenet-r", "imagenet-a", "cue-conflict", "silhouettes", "edges"}
    assert (rows["imagenet-v2"]["classes"], rows["imagenet-v2"]["n"], rows["imagenet-v2"]["imagenet"]) == (
        1000,
        3,
        True,
    )
    assert rows["imagenet-r"]["present"]["classes"] == 2
    assert rows["imagenet-r"]["present"]["top1"] >= rows["imagenet-r"]["top1"]
    report = advbn_gen("report", "shift", tmp_path / "out", "--out", tmp_path / "report")
    assert report.code == 0, report.err
    text = (tmp_path / "report/report.md").read_text()
    cues = rows["cue-conflict"]["cue_conflict"]
    for value in (rows["imagenet-r"]["present"]["top1"], cues["shape_bias"], cues["either"], rows["edges"]["top1"]):
        assert f"{100 * value:.1f}" in text
    assert "Other test sets" in text


@pytest.mark.slow
def test_a_limit_leaves_the_classes_to_decide_among(model: Path, images: Path, tmp_path: Path) -> None:
    wnids = ("n01440764", "n01443537", "n01484850", "n01491361")
    some = image_folder(tmp_path / "r", per_class=2, classes=wnids)
    words = ("evaluate", "--model", model, "--imagenet-r", some, "--cue-conflict", images, "--limit", 2)
    done = advbn_gen(*words, "--restrict-classes", "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    rows = {row["data"]: row for row in json.loads(done.out)["results"]}
    assert rows["imagenet-r"]["decision"] == "among the 4 classes that occur"
    assert "classes that occur" not in rows["cue-conflict"]["decision"]
    report = advbn_gen("report", "shift", tmp_path / "out", "--out", tmp_path / "report")
    assert "imagenet-r: decision: among the 4 classes that occur." in report.out


def test_other_layouts_are_refused(model: Path, images: Path, tmp_path: Path) -> None:
    few = numbered(tmp_path / "few", 12)
    assert "has not the class folders 0 to 999" in refused("evaluate", "--model", model, "--imagenet-v2", few)
    plain = tmp_path / "plain"
    for name in NAMES:
        (plain / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(plain / name / "1.png")
    assert "are not called <shape><n>-<texture><m>" in refused("evaluate", "--model", model, "--cue-conflict", plain)
    wnids = image_folder(tmp_path / "wnids", per_class=1)
    assert "has class folders of ImageNet" in refused("evaluate", "--model", model, "--silhouettes", wnids)
    ten = tiny_classifier(tmp_path / "ten.safetensors", 10)
    assert "has 10 classes, but" in refused(
        "score", "--model", ten, "--data", f"cues={images}", "--out", tmp_path / "o"
    )
