import pytest

from basics.errors import UserError
from sources.layout import label_folders, strip_parents


def test_the_first_folder_is_the_class() -> None:
    labels, classes = label_folders(["b/x/1.png", "a/1.png"], "here")
    assert labels == {"b/x/1.png": 1, "a/1.png": 0}
    assert classes.names == ("a", "b")


def test_imagenet_classes_one_level_further_down_are_not_taken_for_one_class() -> None:
    with pytest.raises(UserError, match=r"here has the ImageNet-1k class folders .* in data; give that folder"):
        label_folders(["data/n01440764/1.png", "data/n01443537/1.png"], "here")


def test_a_flat_validation_folder_is_not_taken_for_one_class() -> None:
    with pytest.raises(UserError, match=r"here holds ILSVRC2012 validation images in the folder images, .*--labels"):
        label_folders(["images/ILSVRC2012_val_00000001.JPEG"], "here")


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
