"""Listing local and remote folders."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from basics.errors import UserError
from basics.paths import as_path
from sources.listing import list_folder
from sources.opening import open_source

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
    assert len(list_folder(tmp_path).listing().images) == 40


def test_a_local_and_a_remote_folder_are_listed_alike(tmp_path: Path, write_folder: WriteFiles) -> None:
    names = ["a/1.png", "a/b/2.jpg", "ab/3.png", "4.png", "notes.txt", ".hidden/5.png", "a/.6.png", "a/movie.gif"]
    remote = as_path("memory://listing/root")
    write_folder(tmp_path, dict.fromkeys(names, b"x"))
    for name in names:
        (remote / name).write_bytes(b"x")
    local, stored = list_folder(tmp_path), list_folder(remote)
    for one, other in ((local, stored), (local.into("a"), stored.into("a"))):
        assert sorted(one.folders()) == sorted(other.folders())
        assert sorted(one.files()) == sorted(other.files())
        assert sorted(one.listing().images) == sorted(other.listing().images)
        for found, same in zip(*(vars(each.listing().left_out).values() for each in (one, other)), strict=True):
            assert sorted(found) == sorted(same)
    images, left_out = stored.listing()
    assert sorted(images) == ["4.png", "a/1.png", "a/b/2.jpg", "ab/3.png"]
    assert left_out.documents == ["notes.txt"]
    assert left_out.unknown == ["a/movie.gif"]
    assert left_out.hidden == ["a/.6.png"]
    assert sorted(stored.into("a").listing().images) == ["1.png", "b/2.jpg"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a pipe"])
def test_what_is_no_file_is_never_opened_and_named_if_it_seems_an_image(
    tmp_path: Path, write_folder: WriteFiles, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "d", {"a/1.png": b""})
    monkeypatch.chdir(tmp_path / "d/a")  # the path of a socket must be short
    for name in ("2.png", "notes", "../notes.txt"):
        if kind == "socket":
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(name)
        else:
            pipe = name if kind == "pipe" else tmp_path / Path(name).name
            os.mkfifo(pipe)
            if kind != "pipe":
                Path(name).symlink_to(pipe)
    with pytest.raises(UserError, match=r"d/a/2\.png has the name of an image and is a pipe, a socket or a device"):
        open_source(tmp_path / "d")
    Path("2.png").unlink()
    assert len(open_source(tmp_path / "d").records) == 1


def test_a_link_to_nothing_is_named_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").symlink_to("gone.png")
    source = open_source(tmp_path)
    with pytest.raises(FileNotFoundError):
        source.read(source.records[0])


@pytest.mark.parametrize("name", ["pipe", "pipe.tar"])
def test_a_pipe_as_a_source_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / name)
    with pytest.raises(UserError, match=rf"{name} cannot be read \(a pipe, socket or device, no file\); check it"):
        open_source(tmp_path / "d" / name)


def test_a_tar_in_a_folder_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(UserError, match=r"x\.tar cannot be read \(a pipe, socket or device, no file\)"):
        open_source(tmp_path)
