"""Files are whole or absent."""

import hashlib
import json
from pathlib import Path

import pytest

from basics.errors import UserError
from basics.files import (
    atomic_path,
    canonical_json,
    digest_file,
    digest_json,
    require_writable_folder,
    write_bytes,
    write_json,
    write_text,
    write_texts,
)


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": ["é"]})
    write_json(tmp_path / "b", {"a": ["é"], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert json.loads((tmp_path / "a").read_text()) == {"b": 1, "a": ["é"]}
    assert canonical_json({"b": 1, "a": [1, None]}) == b'{"a":[1,null],"b":1}'
    assert digest_json({"b": 1}) == hashlib.sha256(b'{"b":1}').hexdigest()


def test_checksums_are_hashlibs(tmp_path: Path) -> None:
    content = b"x" * 3_000_000
    write_bytes(tmp_path / "x", content)
    assert digest_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    assert digest_file(tmp_path / "x", "md5") == hashlib.md5(content).hexdigest()
    write_text(tmp_path / "x", "é")
    assert (tmp_path / "x").read_bytes() == "é".encode()


def test_writable_folders_are_made(tmp_path: Path) -> None:
    require_writable_folder(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()
    assert list((tmp_path / "a/b").iterdir()) == []


def test_other_outputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        require_writable_folder(tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        require_writable_folder(tmp_path / "file/below")
    with pytest.raises(UserError, match="cannot be written"):
        require_writable_folder(Path("/proc/advbn-gen-test"))


def test_several_files_come_together_or_not_at_all(tmp_path: Path) -> None:
    write_texts(tmp_path, {"a": "old a", "b": "old b"})
    with pytest.raises(TypeError):
        write_texts(tmp_path, {"a": "new a", "b": None})  # type: ignore[dict-item]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old a", "b": "old b"}
    write_texts(tmp_path, {"a": "new ä", "b": "new b"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new ä", "b": "new b"}
