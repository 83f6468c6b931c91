from pathlib import Path

import pytest
import torchvision

from basics.errors import UserError
from sources.base import ClassMap
from sources.classes import imagenet_index, imagenet_map, imagenet_names, label_of, map_folders


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
