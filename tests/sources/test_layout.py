"""Which folders are classes: alike on a disk, on a server and in a tar."""

import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from basics.errors import UserError
from basics.paths import as_path
from sources.layout import label_folders, strip_parents
from sources.opening import open_source

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]
LISTED = {"val_annotations.txt": b"val_0.JPEG\tn02124075\t0\t0\t62\t62\nval_1.JPEG\tn04067472\t0\t0\t62\t62\n"}
Store = Callable[[list[str]], str]


@pytest.fixture(params=["disk", "server", "tar"])
def store(request: pytest.FixtureRequest, tmp_path: Path, write_folder: WriteFiles, write_tar: WriteFiles) -> Store:
    """Store files somewhere; the test is run for each form."""

    def write(names: list[str]) -> str:
        files = {name: LISTED.get(name, name.encode()) for name in names}
        if request.param == "disk":
            return str(write_folder(tmp_path / "d", files))
        if request.param == "tar":
            return str(write_tar(tmp_path / "d.tar", files))
        root = as_path(f"memory://{tmp_path}/d")
        for name, content in files.items():
            (root / name).write_bytes(content)
        return str(root)

    return write


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["cat/1.png", "dog/1.png"], "cat dog"),
        (["cat/a/1.png", "dog/b/c/1.png"], "cat dog"),
        (["cat/1.png", "cat/a/2.png", "dog/1.png"], "cat dog"),
        (["only/1.png"], "only"),
        (["bus/1.png", "train/1.png"], "bus train"),
        (["train_interior/1.png", "train_station/1.png"], "train_interior train_station"),
        (["test1/1.png", "test2/1.png"], "test1 test2"),
        (["train/cat/1.png", "val/cat/1.png", "val/dog/1.png"], "cat dog"),
        (["train/cat/1.png", "test/cat/1.png", "test/dog/1.png"], "cat dog"),
        (["cat/1.png", "dog/1.png", "README.md", "LICENSE", "labels/dog.txt", "cat/1.json.txt"], "cat dog"),
        (["images/1.png", "notes.txt"], "images"),
        (["cat/dog/1.png", "cat/owl/1.png", "dog/cat/1.png", "owl/cat/1.png"], "cat dog owl"),
        (["fold1/1.png", "fold2/1.png"], "fold1 fold2"),
        (["cat/odd\\name.png", "dog/1.png"], "cat dog"),
    ],
)
def test_these_folders_are_classes(store: Store, names: list[str], classes: str) -> None:
    assert open_source(store(names)).classes.names == tuple(classes.split())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["Training/cat/1.png", "Testing/cat/1.png"],
            r"(holds the splits|has no folder named val, but) Testing, Train",
        ),
        (
            ["seg_train/a/1.png", "seg_test/a/1.png"],
            r"(holds the splits|has no folder named val, but) seg_test, seg_tr",
        ),
        (
            ["seg_train/seg_train/a/1.png", "seg_test/seg_test/a/1.png", "seg_pred/seg_pred/1.png"],
            r"(holds the splits|has no folder named val, but) seg_pred, seg_test, seg_train",
        ),
        (
            ["train/a/1.png", "test/a/1.png", "pred/1.png"],
            r"holds the splits test, train beside other folders of images \(pred\)",
        ),
        (
            ["bounding_box_train/1.png", "bounding_box_test/1.png", "query/1.png"],
            r"holds the splits bounding_box_test, bounding_box_train, query and no .* such as .*bounding_box_train",
        ),
        (
            ["train/1.png", "val/1.png", "cat/1.png"],
            r"holds the splits train, val beside other folders of images \(cat\); give one of .*, such as .*train",
        ),
        (
            ["my_train/a/1.png", "my_test/a/1.png", "extra/b/1.png"],
            r"holds the splits my_test, my_train beside other folders of images \(extra\)",
        ),
        (["Training/1.png", "Testing/1.png"], r"holds the splits Testing, Training and no classes; give .*Training"),
        (
            ["train/cat/1.png", "val/cat/1.png", "val/dog/1.png", "samples/1.png"],
            r"holds the splits train, val beside other folders of images \(samples\).*give one of the splits, such as",
        ),
        (
            ["train/train/cat.0.jpg", "train/train/dog.0.jpg"],
            r"in the folder train, which is a split|named val, but train",
        ),
        (
            ["val/val/cat.0.jpg", "val/val/dog.0.jpg"],
            r"holds images in the folder val, which is a split and no class; give",
        ),
        (["val/cat/1.png", "samples/1.png"], r"holds the splits val beside .*\(samples\)"),
        (
            ["train/n01440764/1.png", "val/n01440764/1.png", "samples/1.png"],
            r"holds the splits train, val beside other folders of images \(samples\)",
        ),
        (
            ["apple/1.png", "berry/2.gif", "cherry/3.png"],
            r"folder berry of .* has files, but no image of a known kind .*gif",
        ),
        (
            ["apple/1.png", "berry/README.md", "berry/deep/2.heic"],
            r"The folder berry of .* \(such as berry/deep/2\.heic\)",
        ),
        (
            ["apple/1.png", "berry/0a1b"],
            r"The folder berry of .* has files, but no .*; if it is a .* if not, (move|pack)",
        ),
        (
            ["Para/1.png", "Uninf/1.png", "cell_images/Para/1.png", "cell_images/Uninf/1.png"],
            r"same names \(Para, Uninf\) beside its folder cell_images and in it, .*; give .*cell_images.* or ",
        ),
        (
            ["images/001.A/1.png", "segmentations/001.A/1.png", "images/002.B/1.png", "segmentations/002.B/1.png"],
            r"folders images, segmentations of .* are no classes, .*\(001\.A, 002\.B\); give one .* such as .*images",
        ),
        (["fold1/cats/1.png", "fold2/cats/1.png"], r"folders fold1, fold2 of .* are no classes, .*\(cats\)"),
        (["cat\\a.png", "dog\\b.png"], r"have backslashes .*such as cat\\a\.png\); (pack them again with /|move each)"),
        (["top/cat\\a.png", "top/dog\\b.png", "logo.png"], r"backslashes .*such as top/cat\\a\.png\); (pack|move)"),
        (
            ["images/val_0.JPEG", "images/val_1.JPEG", "val_annotations.txt"],
            r"val_annotations\.txt .*lists the images of .*images, which is no class; .*--labels .*val_annotations",
        ),
    ],
)
def test_these_folders_are_no_classes(store: Store, names: list[str], message: str) -> None:
    address = store(names)
    with pytest.raises(UserError, match=message):
        open_source(address)


@pytest.mark.parametrize("prefix", ["PetImages/", "archive/PetImages/"])
def test_a_folder_that_is_one_too_high_is_refused_with_the_one_that_is_meant(
    tmp_path: Path, write_folder: WriteFiles, prefix: str
) -> None:
    write_folder(tmp_path, {f"{prefix}{name}/1.png": b"" for name in ("Cat", "Dog")})
    with pytest.raises(UserError) as refusal:
        open_source(tmp_path)
    folder = tmp_path / prefix
    assert str(refusal.value).endswith(f"and there in the folders Cat, Dog; give {folder}.")
    assert open_source(folder).classes.names == ("Cat", "Dog")


def test_splits_under_other_words_can_be_given_one_by_one(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path, {f"{split}/{name}/1.png": b"" for split in ("Training", "Testing") for name in "ab"})
    with pytest.raises(UserError) as refusal:
        open_source(tmp_path)
    assert str(refusal.value).endswith(f"give one of the splits, such as {tmp_path / 'Training'}.")
    for chosen in (open_source(tmp_path / "Training"), open_source(tmp_path, split="Training")):
        assert [record.name for record in chosen.records] == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize(
    ("names", "notice"),
    [
        (["cat/1.png", "dog/1.png", "README.md", "cat/notes.txt", "LICENSE"], ""),
        (["cat/1.png", "dog/1.png", "thumbnail.png"], "1 image beside the class folders (thumbnail.png)"),
        (["cat/1.png", "cat/2.gif", "cat/3.gif", "dog/1.png"], "2 files of other kinds (such as cat/2.gif)"),
        (["cat/1.png", "dog/1.png", "notes/x.txt", "boxes/x.xml"], "2 folders without images (such as boxes)"),
        (
            ["cat/1.png", "dog/1.png", "cat/._1.png", "dog/.2.JPEG", ".DS_Store"],
            "2 hidden images or labels (such as cat/._1.png)",
        ),
        (["cat/1.png", "dog/1.png", "backup.zip"], "1 file of another kind (backup.zip)"),
        (["cat/1.png", "cat/a/2.png", "x.gif"], "1 file of another kind (x.gif)"),
    ],
)
def test_one_notice_says_what_is_left_out(
    store: Store, capsys: pytest.CaptureFixture[str], names: list[str], notice: str
) -> None:
    address = store(names)
    open_source(address)
    left_out = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Left out")]
    assert left_out == ([f"Left out of {address}: {notice}."] if notice else [])


def test_an_empty_class_folder_is_passed_over_with_a_notice(
    tmp_path: Path, write_folder: WriteFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "d", {"apple/1.png": b"", "cherry/1.png": b"", "__MACOSX/apple/._1.png": b""})
    (tmp_path / "d/berry").mkdir()
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        tar.add(tmp_path / "d", "top")
    for address in (tmp_path / "d", tmp_path / "d.tar"):
        assert open_source(address).classes.names == ("apple", "cherry")
        assert f"Left out of {address}: 1 folder without images (berry)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "notice"),
    [
        (
            ["train/steam/1.png", "bus/1.png"],
            "train of {} is taken for a class, like bus; if it holds classes, give {}/tr",
        ),
        (["images/1.png", "images/2.png"], "{} has one class, images.\n"),
        (
            ["images/1.png", "annotations/trimaps/1.png"],
            "The folders annotations, images of {} are taken for its classes, and folders in them (such as annot",
        ),
        (["photo/dog/1.png", "sketch/dog/1.png"], "The folders photo, sketch of {} are taken for its classes, and"),
        (["cat/front/1.png", "dog/front/1.png"], "(such as cat/front) for parts of them; if those are the classes"),
        (["top/1.png", "top/a/1.png"], "{} has one class, top; its folders (such as a) are taken for parts of it"),
    ],
)
def test_folders_that_may_be_no_classes_are_named(
    tmp_path: Path, write_folder: WriteFiles, capsys: pytest.CaptureFixture[str], names: list[str], notice: str
) -> None:
    write_folder(tmp_path, dict.fromkeys(names, b""))
    assert len(open_source(tmp_path).records) == 2
    assert notice.format(tmp_path, tmp_path) in capsys.readouterr().err


def test_files_of_other_kinds_shift_no_label_of_imagenet(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    source = open_source(store(["n01440764/1.png", "n01484850/1.png", "n01443537/1.gif", "extra/1.gif"]))
    assert [record.label for record in source.records] == [0, 2]
    assert "2 folders without images (such as extra), 2 files of other kinds" in capsys.readouterr().err


def test_unpacked_shards_are_not_taken_for_class_folders(store: Store) -> None:
    address = store(["00/a.png", "00/a.cls", "01/b.png", "01/b.cls"])
    with pytest.raises(UserError, match=r"holds unpacked samples with labels \(such as 00/a\.cls\)|cls of the sample"):
        open_source(address)


def test_the_first_folder_is_the_class() -> None:
    labels, classes = label_folders(["b/x/1.png", "a/1.png"], "here")
    assert labels == {"b/x/1.png": 1, "a/1.png": 0}
    assert classes.names == ("a", "b")


def test_imagenet_classes_one_level_further_down_are_not_taken_for_one_class() -> None:
    with pytest.raises(
        UserError, match=r"here has the ImageNet-1k class folders .* in data; give that folder, here/data"
    ):
        label_folders(["data/n01440764/1.png", "data/n01443537/1.png"], "here")


def test_a_flat_validation_folder_is_not_taken_for_one_class() -> None:
    with pytest.raises(UserError, match=r"here holds ILSVRC2012 validation images in the folder images, .*--labels"):
        label_folders(["images/ILSVRC2012_val_00000001.JPEG"], "here")
    flat = [f"images/ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 20)]
    with pytest.raises(UserError, match="give that folder itself, here/images, with --labels"):
        label_folders([*flat, "others/1.png"], "here")


def test_validation_images_sorted_into_folders_of_any_names_are_classes(capsys: pytest.CaptureFixture[str]) -> None:
    mixed = [f"c{label}/{file}.JPEG" for label in range(3) for file in (f"ILSVRC2012_val_0000000{label}", "1", "2")]
    assert label_folders(mixed, "here")[1].names == ("c0", "c1", "c2")
    assert "validation images in c0, c1, c2, which are taken for classes" in capsys.readouterr().err
    sorted_out = [f"c{label}/ILSVRC2012_val_0000000{label}.JPEG" for label in range(3)]
    assert label_folders(sorted_out, "here")[1].names == ("c0", "c1", "c2")
    one = ["c0/ILSVRC2012_val_00000001.JPEG", *(f"c{label}/{file}.JPEG" for label in range(3) for file in range(5))]
    assert label_folders(one, "here")[1].names == ("c0", "c1", "c2")
    beside = [f"n01440764/ILSVRC2012_val_{number:08}.JPEG" for number in range(20)]
    with pytest.raises(UserError, match="mixes 1 ImageNet-1k class folders"):
        label_folders([*beside, "others/1.png"], "here")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/1.png", "b/1.png"], ["a/1.png", "b/1.png"]),
        (["top/a/1.png", "top/b/1.png"], ["a/1.png", "b/1.png"]),
        (["x/y/a/1.png", "x/y/b/s/1.png"], ["a/1.png", "b/s/1.png"]),
        (["top/train/a/1.png", "top/val/a/2.png"], ["a/2.png"]),
        (["validation/a/1.png", "train/a/1.png"], ["a/1.png"]),
        (["train/a/1.png", "test/a/2.png"], ["a/2.png"]),
        (["only/1.png"], ["only/1.png"]),
        (["n01440764/s/1.png", "n01440764/t/1.png"], ["n01440764/s/1.png", "n01440764/t/1.png"]),
        (["top/1.png", "top/a/1.png"], ["top/1.png", "top/a/1.png"]),
    ],
)
def test_folders_before_the_classes_are_cut_off(names: list[str], expected: list[str]) -> None:
    paths = strip_parents(names, "val", "here")
    assert list(paths) == expected
    assert all(whole.endswith(short) and whole in names for short, whole in paths.items())


def test_a_tar_without_the_wanted_split_is_refused() -> None:
    with pytest.raises(UserError, match="here has no folder named test, but train, val; give another --split"):
        strip_parents(["train/a/1.png", "val/a/1.png"], "test", "here")


def test_numbers_count_the_classes_without_images_but_no_other_folder(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path / "d", {f"{number}/1.png": b"" for number in (2, 10, 11)} | {"notes/x.txt": b""})
    for number in range(12):
        (tmp_path / "d" / str(number)).mkdir(exist_ok=True)
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        tar.add(tmp_path / "d", "d")
    for address in (tmp_path / "d", tmp_path / "d.tar"):
        source = open_source(address)
        assert [record.label for record in source.records] == [2, 10, 11]
        assert source.classes.count == 12
