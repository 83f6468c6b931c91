"""Images that nobody labelled, as a source of ImageNet's classes."""

import os
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image
from torchvision import transforms

from basics.errors import UserError
from downstream.own_images import OwnImages, collect_images
from networks.classifiers import Classifier
from networks.specs import load_model
from sources.opening import open_source
from tests.support import image_folder, tiny_classifier

CLASSES = Path(__file__).parents[2] / "sources/imagenet_classes.tsv"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    path = tmp_path_factory.mktemp("network") / "classifier.safetensors"
    return load_model(str(tiny_classifier(path, 1000, seed=3, answers=(0, 217, 491))))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Images in folders that are no classes of ImageNet's, two of one name, and a file that is no image."""
    folder = image_folder(tmp_path / "photographs", per_class=3, classes=("beach", "party"))
    (folder / "sub/deeper").mkdir(parents=True)
    for path in ("same.jpg", "sub/deeper/same.jpg"):
        shutil.copy(folder / "beach/beach_0.JPEG", folder / path)
    (folder / "notes.txt").write_text("from the holidays")
    return folder


def collect(source: Path | None, out: Path, classifier: Classifier, most: int = 64) -> OwnImages:
    return collect_images(None if source is None else str(source), out, most, classifier, "the network")


def images_of(folder: Path) -> dict[str, Path]:
    images = (path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    return {path.relative_to(folder).as_posix(): path for path in images}


def most_probable(classifier: Classifier, path: Path) -> str:
    prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    with torch.no_grad():
        index = int(classifier.module(prepare(Image.open(path).convert("RGB"))[None]).argmax())
    return CLASSES.read_text().splitlines()[index + 1].split("\t")[1]


@pytest.mark.slow
def test_the_most_probable_class_is_the_label(photographs: Path, classifier: Classifier, tmp_path: Path) -> None:
    found = collect(photographs, tmp_path / "out", classifier)
    given, copied = images_of(photographs), images_of(found.folder)
    assert found.count == len(given) == 8
    assert {name.partition("/")[2] for name in copied} == given.keys()
    for name, path in copied.items():
        wnid, _, rest = name.partition("/")
        assert path.read_bytes() == given[rest].read_bytes()
        assert wnid == most_probable(classifier, path)
    assert len({name.partition("/")[0] for name in copied}) > 1, "the labels say something"
    source = open_source(str(found.folder))
    assert (source.classes.imagenet, len(source.records)) == (True, 8)
    (note,) = found.notes
    assert "no labels" in note
    assert "the network" in note


def test_labels_of_imagenet_s_classes_are_kept(classifier: Classifier, tmp_path: Path) -> None:
    labelled = image_folder(tmp_path / "labelled", per_class=3)
    found = collect(labelled, tmp_path / "out", classifier)
    given = images_of(labelled)
    assert {name: path.read_bytes() for name, path in images_of(found.folder).items()} == {
        name: path.read_bytes() for name, path in given.items()
    }
    assert found.notes == ()
    some = collect(labelled, tmp_path / "some", classifier, most=4)
    assert some.count == len(images_of(some.folder)) == 4
    assert len({path.parent.name for path in images_of(some.folder).values()}) == min(4, len(list(labelled.iterdir())))
    assert some.notes == (f"These are 4 of {len(given)} images, evenly spread.",)


def test_the_same_images_again_are_left_as_they_are_and_others_are_refused(
    photographs: Path, classifier: Classifier, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    collect(photographs, out, classifier)
    before = {path: path.stat().st_ino for path in images_of(out).values()}
    collect(photographs, out, classifier)
    assert {path: path.stat().st_ino for path in images_of(out).values()} == before
    shutil.copy(photographs / "same.jpg", out / "n01440764-mine.jpg")
    with pytest.raises(UserError, match=r"none of these images \(n01440764-mine.jpg\)"):
        collect(photographs, out, classifier)
    (out / "n01440764-mine.jpg").unlink()
    first = min(images_of(photographs).values())
    Image.new("RGB", (50, 40), "red").save(first)
    with pytest.raises(UserError, match=r"holds other images .*give another --out"):
        collect(photographs, out, classifier)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(letter.txt\)"):
        collect(photographs, tmp_path / "mine", classifier)
    assert (tmp_path / "mine/letter.txt").read_text() == "mine"


def test_what_cannot_be_decoded_is_left_out_and_said(
    photographs: Path, classifier: Classifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photographs / "broken.jpg").write_bytes(b"no image")
    (photographs / "gone.jpg").symlink_to(photographs / "nowhere.jpg")
    with pytest.raises(UserError, match=r"gone.jpg .* cannot be read"):
        collect(photographs, tmp_path / "out", classifier)
    (photographs / "gone.jpg").unlink()
    found = collect(photographs, tmp_path / "out", classifier)
    assert found.count == 8
    assert "1 of them are left out" in " ".join(found.notes)
    assert "Left out: The image broken.jpg is broken" in capsys.readouterr().err
    for path in images_of(photographs).values():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="None of the images"):
        collect(photographs, tmp_path / "none", classifier)


def test_odd_folders_are_refused_in_one_sentence(photographs: Path, classifier: Classifier, tmp_path: Path) -> None:
    (photographs / "again").symlink_to(photographs)
    with pytest.raises(UserError, match="cannot be listed"):
        collect(photographs, tmp_path / "out", classifier)
    (photographs / "again").unlink()
    shutil.copy(photographs / "same.jpg", photographs / os.fsdecode(b"caf\xe9.jpg"))
    with pytest.raises(UserError, match="UTF-8"):
        collect(photographs, tmp_path / "out", classifier)


def test_a_label_list_of_validation_images_is_used(photographs: Path, classifier: Classifier, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in (1, 2, 3):
        shutil.copy(photographs / "same.jpg", flat / f"ILSVRC2012_val_{number:08d}.JPEG")
    assert "no labels" in collect(flat, tmp_path / "without", classifier).notes[0]
    (flat / "val.txt").write_text("".join(f"ILSVRC2012_val_{number:08d}.JPEG {9 * number}\n" for number in (1, 2, 3)))
    found = collect_images(str(flat), tmp_path / "with", 64, classifier, "the network", labels=flat / "val.txt")
    assert found.notes == ()
    wnids = [line.split("\t")[1] for line in CLASSES.read_text().splitlines()[1:]]
    assert {Path(name).parts[0] for name in images_of(found.folder)} == {wnids[9], wnids[18], wnids[27]}


@pytest.mark.parametrize(("name", "message"), [("nowhere", "does not exist"), ("empty", "images")])
def test_where_there_is_no_image_it_is_said(tmp_path: Path, classifier: Classifier, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        collect(tmp_path / name, tmp_path / "out", classifier)
    assert not (tmp_path / "out").exists()


def test_photographs_of_an_installed_package_are_found_and_named(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "scikit_image-9.8.dist-info").mkdir(parents=True)
    (site / "scikit_image-9.8.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: scikit-image\nVersion: 9.8\n"
    )
    (site / "skimage/data").mkdir(parents=True)
    for name in ("coffee.png", "chelsea.png", "text.png"):
        Image.new("RGB", (60, 50), "brown").save(site / "skimage/data" / name)
    monkeypatch.syspath_prepend(str(site))
    found = collect(None, tmp_path / "out", classifier)
    assert {Path(name).name for name in images_of(found.folder)} >= {"coffee.png", "chelsea.png"}
    assert "text.png" not in {Path(name).name for name in images_of(found.folder)}
    assert "scikit-image 9.8" in found.notes[0]


def test_without_such_a_package_a_folder_is_asked_for(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sources.photographs.distribution", Mock(side_effect=PackageNotFoundError))
    with pytest.raises(UserError, match=r"give --source FOLDER, or pip install scikit-image"):
        collect(None, tmp_path / "out", classifier)
