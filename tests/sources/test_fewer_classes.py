"""Some of a source's classes, with labels of their own."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from basics.errors import UserError
from sources.base import ImageRecord
from sources.classes import imagenet_index
from sources.fewer_classes import FewerClasses, occurring
from sources.opening import open_source

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]
FILES = {"n01443537/a.png": b"goldfish", "n02979186/b.png": b"cassette player", "n01440764/c.png": b"tench"}


def test_labels_count_the_classes_that_occur(tmp_path: Path, write_folder: WriteFiles) -> None:
    inner = open_source(write_folder(tmp_path, FILES))
    names = occurring(inner)
    assert names == sorted({name.split("/")[0] for name in FILES}, key=imagenet_index().__getitem__)
    fewer = FewerClasses(inner, names)
    assert [record.name for record in fewer.records] == [record.name for record in inner.records]
    assert [names[record.label] for record in fewer.records] == [record.name.split("/")[0] for record in fewer.records]
    assert (fewer.classes.names, fewer.classes.imagenet) == (tuple(names), False)
    assert {record.name: fewer.read(record) for record in fewer.records} == FILES
    last = pickle.loads(pickle.dumps(fewer.part(fewer.records[-1:])))
    assert last.read(last.records[0]) == FILES[last.records[0].name]
    assert fewer.state_checksums(fewer.records) == inner.state_checksums(inner.records)


def test_the_order_of_names_is_that_of_the_labels(tmp_path: Path, write_folder: WriteFiles) -> None:
    fewer = FewerClasses(open_source(write_folder(tmp_path, FILES)), ["n02979186", "n01440764", "n01443537"])
    assert ImageRecord("n01440764/c.png", 1) in fewer.records


def test_a_class_without_images_is_no_fault_and_none_at_all_is(tmp_path: Path, write_folder: WriteFiles) -> None:
    inner = open_source(write_folder(tmp_path, {"cat/a.png": b"", "dog/b.png": b""}))
    fewer = FewerClasses(inner, ["bird", "cat", "dog"])
    assert [record.label for record in fewer.records] == [1, 2]
    assert fewer.read(fewer.records[1]) == b""
    with pytest.raises(UserError, match=r"none of the 1 classes \(such as n01440764\), but classes called cat, dog"):
        FewerClasses(inner, ["n01440764"])


def test_an_image_of_another_class_is_refused(tmp_path: Path, write_folder: WriteFiles) -> None:
    inner = open_source(write_folder(tmp_path, FILES))
    with pytest.raises(
        UserError, match=r"images of the class n02979186 \(such as n02979186/b.png\), which is none of the 2"
    ):
        FewerClasses(inner, ["n01440764", "n01443537"])
