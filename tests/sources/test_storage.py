import gzip
from pathlib import Path

import pytest

from basics.errors import UserError
from sources import storage
from sources.storage import open_random_access, read_text


def test_a_file_is_read_at_any_offset(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    file = open_random_access(tmp_path / "f")
    assert (file.size, file.memory) == (10, 0)
    assert (file.read(7, 2), file.read(8, 9), file.read(20, 1)) == (b"78", b"89", b"")


def test_a_gzipped_file_is_unpacked_into_memory(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(gzip.compress(b"0123456789"))
    file = open_random_access(tmp_path / "f")
    assert (file.size, file.memory, file.read(7, 2)) == (10, 10, b"78")


def test_a_gzipped_file_too_large_for_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "UNPACKED_LIMIT", 9)
    (tmp_path / "f.gz").write_bytes(gzip.compress(b"0123456789"))
    with pytest.raises(UserError, match=r"f\.gz is gzipped and unpacks to over .* unpack it first"):
        open_random_access(tmp_path / "f.gz")


@pytest.mark.parametrize("cut", [20, 30])
def test_a_damaged_gzip_stream_cannot_be_read(tmp_path: Path, cut: int) -> None:
    content = gzip.compress(bytes(range(256)))
    (tmp_path / "f").write_bytes(content[:cut] + bytes(len(content) - cut) if cut == 20 else content[:cut])
    with pytest.raises(OSError, match=r"damaged gzip stream|CRC"):
        open_random_access(tmp_path / "f")


def test_text_loses_its_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfa\n")
    assert read_text(tmp_path / "f", "list") == "a\n"


def test_text_that_is_missing_a_folder_or_binary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"The list .*nowhere does not exist"):
        read_text(tmp_path / "nowhere", "list")
    with pytest.raises(UserError, match=r"The list .* cannot be read \(Is a directory\)"):
        read_text(tmp_path, "list")
    with pytest.raises(UserError, match=r"The list .*binary is not UTF-8 text"):
        read_text(tmp_path / "binary", "list")
