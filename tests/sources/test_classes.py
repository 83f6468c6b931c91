from pathlib import Path

import pytest
import torchvision

from basics.errors import UserError
from sources.base import ClassMap, numbered_classes
from sources.classes import (
    compare_classes,
    imagenet_index,
    imagenet_map,
    imagenet_names,
    label_of,
    map_folders,
    require_agreeing,
)


def test_the_table_holds_the_1000_classes_in_the_order_of_sorted_wnids() -> None:
    wnids = imagenet_map().names
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert imagenet_map().imagenet
    assert imagenet_index()["n01440764"] == 0
    assert imagenet_index()["n15075141"] == 999


def test_the_names_agree_with_torchvisions_weights() -> None:
    theirs = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    ours = imagenet_names()
    different = [index for index in range(1000) if theirs[index].casefold() != ours[index].casefold()]
    # Word order and spelling vary a little between lists, but a shift by one row would spoil nearly all.
    assert len(different) < 300


def test_the_table_equals_the_published_list(shared_data: Path) -> None:
    published = (shared_data / "imagenet-classes.tsv").read_text(encoding="utf-8").splitlines()[1:]
    ours = [f"{index}\t{imagenet_map().names[index]}\t{name}" for index, name in enumerate(imagenet_names())]
    assert ours == published


def test_a_few_wnids_still_have_their_imagenet_index() -> None:
    classes = map_folders({"n15075141", "n01443537"}, "here")
    assert classes == imagenet_map()
    assert label_of(classes)["n15075141"] == 999


def test_other_folders_are_numbered_in_sorted_order() -> None:
    assert map_folders({"b", "B", "a"}, "here") == ClassMap(names=("B", "a", "b"), imagenet=False)


def test_wnids_that_are_not_of_imagenet_1k_are_classes_of_their_own() -> None:
    assert map_folders({"n00000001", "n00000002"}, "here").imagenet is False


@pytest.mark.parametrize("strange", ["n00000001", "extras"])
def test_a_mix_of_imagenet_and_other_folders_is_refused(strange: str) -> None:
    with pytest.raises(UserError, match=rf"here mixes 1 ImageNet-1k .*n01440764.*1 other .*{strange}"):
        map_folders({"n01440764", strange}, "here")


def test_folders_of_numbers_from_0_on_are_labelled_by_their_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    classes = map_folders({"2", "10", "11"}, "here", empty=[str(number) for number in range(12)])
    assert label_of(classes)["10"] == 10
    assert not classes.named
    assert "the label of each is its number" in capsys.readouterr().err


def test_ten_folders_of_digits_have_one_order_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert map_folders(set("0123456789"), "here") == numbered_classes(10)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "folders", [{"1", "2", "3"}, {"2", "10", "100"}, {"0", "1", "3", "12"}, {"0", "3", "5"}, {"000", "005"}]
)
def test_other_numbers_are_refused(folders: set[str]) -> None:
    with pytest.raises(UserError, match=r"The class folders of here are numbers .* their labels are not known"):
        map_folders(folders, "here")


def test_years_are_names() -> None:
    assert map_folders({"1990", "2010"}, "here") == ClassMap(names=("1990", "2010"), imagenet=False)


def test_numbers_filled_up_with_zeros_keep_their_order() -> None:
    names = tuple(f"{number:02d}" for number in range(1, 12))
    assert map_folders(set(names), "here") == ClassMap(names=names, imagenet=False)
    from_0_on = map_folders({f"{number:03d}" for number in range(1000)}, "here")
    assert label_of(from_0_on)["010"] == 10
    assert not from_0_on.named
    assert compare_classes("a", imagenet_map(), "b", from_0_on, "mend") is not None
    assert compare_classes("a", numbered_classes(1000), "b", from_0_on, "mend") is None


def test_classes_are_compared_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    cats = ClassMap(names=("cat", "dog"), imagenet=False)
    assert compare_classes("a", cats, "b", cats, "mend") is None
    unnamed = compare_classes("a", cats, "b", numbered_classes(2), "mend")
    notice = "b does not say which classes it has; they are taken to be those of a."
    assert unnamed == ("b", notice)
    require_agreeing("a", cats, "b", numbered_classes(2), "mend")
    assert capsys.readouterr().err == f"{notice}\n"
    for names, said in (
        (("dog", "cat"), "another order; mend"),
        (("cat", "eel"), "class 1 is dog for a and eel for b"),
    ):
        with pytest.raises(UserError, match=said):
            compare_classes("a", cats, "b", ClassMap(names=names, imagenet=False), "mend")


def test_a_message_says_how_shards_declare_imagenets_labels() -> None:
    for outputs in (imagenet_map(), numbered_classes(1000)):
        with pytest.raises(UserError, match=r"manifest\.json.*imagenet.*true"):
            compare_classes("the model m", outputs, "the data set d", numbered_classes(3), "give another")
    with pytest.raises(UserError, match=r"has 3; give another\.$"):
        compare_classes("the model m", numbered_classes(7), "the data set d", numbered_classes(3), "give another")
