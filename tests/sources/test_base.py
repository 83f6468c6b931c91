"""What all sources share: the checksum over names and labels, and parts of a source."""

import hashlib
import json

import pytest

from sources import base
from sources.base import ClassMap, ImageRecord, Source


class Made(Source):
    """A source of records only."""

    address, order, classes = "made", "ImageFolder", ClassMap(names=("a", "b"), imagenet=False)

    def __init__(self, records: list[ImageRecord]) -> None:
        self.records = records

    def read(self, record: ImageRecord) -> bytes:
        return record.name.encode()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 11])
def test_the_checksum_is_that_of_one_json_list(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_PIECE", 4)
    records = [ImageRecord(f"a/é{number}.png", number % 2) for number in range(count)]
    whole = json.dumps([list(record) for record in records], separators=(",", ":"), ensure_ascii=False)
    assert Made(records).digest() == hashlib.sha256(whole.encode()).hexdigest()


def test_the_checksum_covers_names_labels_and_order() -> None:
    first, second, other = ImageRecord("a/1.png", 0), ImageRecord("b/1.png", 1), ImageRecord("a/1.png", 1)
    digests = {Made(records).digest() for records in ([first, second], [second, first], [other, second], [first])}
    assert len(digests) == 4


def test_a_part_leaves_the_whole_as_it_was() -> None:
    whole = Made([ImageRecord(f"a/{number}.png", 0) for number in range(3)])
    part = whole.part(whole.records[1:])
    assert [record.name for record in part.records] == ["a/1.png", "a/2.png"]
    assert len(whole.records) == 3
    assert part.classes == whole.classes
