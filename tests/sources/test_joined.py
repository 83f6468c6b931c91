"""Two sources as one."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from basics.errors import UserError
from sources.base import ImageRecord
from sources.joined import JoinedSource
from sources.opening import open_source

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]


def test_the_second_source_follows_the_first_under_names_of_its_own(tmp_path: Path, write_folder: WriteFiles) -> None:
    first = open_source(write_folder(tmp_path / "a", {"cat/1.png": b"a1", "dog/1.png": b"a2"}))
    second = open_source(write_folder(tmp_path / "b", {"cat/1.png": b"b1", "dog/2.png": b"b2"}))
    joined = JoinedSource(first, second)
    names = ["cat/1.png", "dog/1.png", "+/cat/1.png", "+/dog/2.png"]
    assert joined.records == [ImageRecord(name, label) for name, label in zip(names, [0, 1, 0, 1], strict=True)]
    assert [joined.read(record) for record in joined.records] == [b"a1", b"a2", b"b1", b"b2"]
    assert joined.second_records == joined.records[2:]
    assert joined.digest() not in {first.digest(), second.digest()}


def test_sources_of_other_classes_are_refused(tmp_path: Path, write_folder: WriteFiles) -> None:
    first = open_source(write_folder(tmp_path / "a", {"cat/1.png": b"", "dog/1.png": b""}))
    second = open_source(write_folder(tmp_path / "b", {"cat/1.png": b"", "cow/1.png": b"", "dog/1.png": b""}))
    with pytest.raises(UserError, match=r"different classes \(2 and 3\); give a second source of the same classes"):
        JoinedSource(first, second)
