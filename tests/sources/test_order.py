import hashlib
from pathlib import Path

import pytest

from basics.errors import UserError
from sources.base import ImageRecord
from sources.order import file_order, image_folder_order

RECORDS = [ImageRecord("a/1.png", 0), ImageRecord("a/2.png", 0), ImageRecord("b/1.png", 1)]


def test_the_class_goes_before_the_folder_and_the_folder_before_the_file() -> None:
    expected = [
        ImageRecord("a/z.png", 0),
        ImageRecord("a/s/b.png", 0),
        ImageRecord("a/s-2/a.png", 0),
        ImageRecord("a-b/a.png", 1),
        ImageRecord("x/a.png", 10),
    ]
    # "a/s" sorts before "a/s-2", but "a/s/" after "a/s-2/".
    assert image_folder_order(dict(reversed(expected))) == expected


def test_a_file_gives_another_order_and_its_checksum(tmp_path: Path) -> None:
    content = b"b/1.png\r\n\r\na/2.png\na/1.png"
    (tmp_path / "order.txt").write_bytes(content)
    records, order = file_order(RECORDS, tmp_path / "order.txt")
    assert records == [RECORDS[2], RECORDS[1], RECORDS[0]]
    assert order == f"file:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1.png\nc/1.png\n", r"Line 2 of the order file .* names no image of the source \(c/1\.png\)"),
        ("a/1.png\n\na/1.png\n", r"Line 3 of the order file .* names an image a second time \(a/1\.png\)"),
        ("b/1.png\na/2.png\n", r"lacks 1 of the 3 images \(such as a/1\.png\)"),
    ],
)
def test_a_wrong_order_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "order.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        file_order(RECORDS, tmp_path / "order.txt")


def test_a_missing_order_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The order file .*nowhere\.txt does not exist"):
        file_order(RECORDS, tmp_path / "nowhere.txt")
