"""Scanning several tars: memory of gzipped ones, and what cannot be read."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from basics.errors import UserError
from sources.opening import open_source
from sources.tar import scanning

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]

FILES = {f"{folder}/1.png": folder.encode() * 100 for folder in "ba"}


def test_gzipped_tars_that_together_are_too_large_are_refused(
    tmp_path: Path, write_tar: WriteFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (0, 1):
        write_tar(tmp_path / f"x-{number}.tar.gz", {f"a/{number}.png": b""})
    assert len(open_source(str(tmp_path / "x-{0,1}.tar.gz")).records) == 2
    monkeypatch.setattr(scanning, "UNPACKED_LIMIT", 15_000)  # a tar is padded to 10,240 bytes
    with pytest.raises(UserError, match=r"x-1\.tar\.gz is gzipped and unpacks to over"):
        open_source(str(tmp_path / "x-{0,1}.tar.gz"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is not a tar"), (b"no tar" * 200, "is not a tar"), (b"\x1f\x8bno gzip", "cannot be read")],
)
def test_what_is_no_tar_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.tar {message}"):
        open_source(str(tmp_path / "x.tar"))


@pytest.mark.usefixtures("unprivileged")
def test_a_tar_that_may_not_be_read_is_refused(tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    path.chmod(0)
    with pytest.raises(UserError, match=r"x\.tar cannot be read \(Permission denied\)"):
        open_source(str(path))
