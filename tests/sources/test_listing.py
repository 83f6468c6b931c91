"""Listing local and remote folders."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from basics.paths import as_path
from sources.listing import list_folder, list_images

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]


def test_listing_opens_no_file_and_reads_no_size(
    tmp_path: Path, write_folder: WriteFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {f"{name}/{number}.png": b"" for name in "ab" for number in range(20)})

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a file was touched")

    monkeypatch.setattr(os, "stat", forbidden)
    monkeypatch.setattr("io.open", forbidden)
    monkeypatch.setattr(os, "open", forbidden)
    assert len(list(list_images(os.fspath(tmp_path)))) == 40


def test_a_local_and_a_remote_folder_are_listed_alike(tmp_path: Path, write_folder: WriteFiles) -> None:
    names = ["a/1.png", "a/b/2.jpg", "ab/3.png", "4.png", "notes.txt", ".hidden/5.png", "a/.6.png"]
    remote = as_path("memory://listing/root")
    write_folder(tmp_path, dict.fromkeys(names, b"x"))
    for name in names:
        (remote / name).write_bytes(b"x")
    local, stored = list_folder(tmp_path), list_folder(remote)
    for one, other in ((local, stored), (local.into("a"), stored.into("a"))):
        assert sorted(one.folders()) == sorted(other.folders())
        assert sorted(one.files()) == sorted(other.files())
        assert sorted(one.images()) == sorted(other.images())
    assert sorted(stored.images()) == ["4.png", "a/1.png", "a/b/2.jpg", "ab/3.png"]
    assert sorted(stored.into("a").images()) == ["1.png", "b/2.jpg"]
