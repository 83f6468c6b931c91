"""Marks of content: what changes them and what does not."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from upath import UPath

from sources.content import ABSENT, FileState, remote_states, state_checksum, state_of
from sources.drawn.source import DrawnSource
from sources.joined import JoinedSource
from sources.opening import open_source
from tests.s3 import S3Server

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]
FILES = {"cat/1.png": b"one", "cat/2.png": b"two", "dog/1.png": b"three"}
OLD, NEW = 10**18 + 123, 10**18 + 5 * 10**9


def mark(path: Path | str, records: slice = slice(None)) -> str:
    source = open_source(path)
    (found,) = source.state_checksums(source.records[records])
    return found


def aged(folder: Path, time: int = OLD) -> Path:
    for path in folder.rglob("*"):
        os.utime(path, ns=(time, time))
    return folder


def test_a_changed_size_or_time_of_any_image_changes_the_mark(tmp_path: Path, write_folder: WriteFiles) -> None:
    folder = aged(write_folder(tmp_path / "a", FILES))
    before = mark(folder)
    assert before == mark(folder)
    (folder / "dog/1.png").write_bytes(b"four!")  # as many bytes
    assert before != mark(folder)
    os.utime(folder / "dog/1.png", ns=(OLD, OLD))
    assert before == mark(folder)
    (folder / "dog/1.png").write_bytes(b"more than before")
    os.utime(folder / "dog/1.png", ns=(OLD, OLD))
    assert before != mark(folder)
    # Only of the images that are asked for.
    assert mark(folder, slice(2)) == state_checksum([FileState(3, OLD)] * 2)


def test_a_moved_folder_keeps_its_mark_also_where_times_are_kept_in_seconds(
    tmp_path: Path, write_folder: WriteFiles
) -> None:
    folder = aged(write_folder(tmp_path / "a", FILES))
    before = mark(folder)
    folder = Path(shutil.move(folder, tmp_path / "b"))
    assert before == mark(folder)
    for kept in (10**9, 10**6, 100):
        assert before == mark(aged(folder, OLD // kept * kept))
    assert before != mark(aged(folder, NEW))


@pytest.mark.parametrize("time", [0, 1, 315_532_800])
def test_where_all_times_are_those_of_an_archive_the_ends_of_files_count(
    tmp_path: Path, write_folder: WriteFiles, time: int
) -> None:
    """Two folders out of reproducible archives: equal names, sizes and times, other pixels."""
    first = {name: bytes(20_000) for name in FILES}
    second = {name: bytes(20_000 - 1) + b"x" for name in FILES}
    marks = [
        mark(aged(write_folder(tmp_path / at, files), time * 10**9)) for at, files in (("a", first), ("b", second))
    ]
    again = mark(aged(write_folder(tmp_path / "c", first), time * 10**9))
    assert marks[0] == again != marks[1]


def test_of_tars_size_and_time_count(tmp_path: Path, write_tar: WriteFiles) -> None:
    tar = write_tar(tmp_path / "a.tar", FILES)
    os.utime(tar, ns=(OLD, OLD))
    before = mark(tar)
    assert before == state_checksum([FileState(tar.stat().st_size, OLD)])
    os.utime(tar, ns=(NEW, NEW))
    assert before != mark(tar)


def test_every_record_has_the_state_of_its_file(
    tmp_path: Path, write_folder: WriteFiles, write_tar: WriteFiles
) -> None:
    folder = aged(write_folder(tmp_path / "a", FILES))
    source = open_source(folder)
    backward = source.records[::-1]
    assert [state.size for state in source.record_states(backward)] == [5, 3, 3]
    for number, name in enumerate(FILES):
        write_tar(tmp_path / "b" / f"{number}.tar", {name: FILES[name] * 600 * (number + 1)})
    tars = open_source(tmp_path / "b")
    sizes = [(tmp_path / "b" / f"{number}.tar").stat().st_size for number in range(3)]
    assert len(set(sizes)) > 1
    assert [state.size for state in tars.record_states(tars.records[::-1])] == sizes[::-1]
    joined = JoinedSource(source, tars)
    assert [state.size for state in joined.record_states(joined.records[::-1])] == [*sizes[::-1], 5, 3, 3]
    assert DrawnSource("val").record_states(DrawnSource("val").records) == []


def test_flat_folders_have_marks(tmp_path: Path, write_folder: WriteFiles) -> None:
    names = {f"ILSVRC2012_val_0000000{number}.JPEG": b"x" * number for number in (1, 2)}
    folder = aged(write_folder(tmp_path / "a", names))
    (folder / "labels.txt").write_text("\n".join(f"{name} {number}" for number, name in enumerate(names)))
    source = open_source(folder, labels=folder / "labels.txt")
    states = {record.name.partition("/")[2]: len(source.read(record)) for record in source.records}
    assert source.file_states(source.records) == [FileState(size, OLD) for size in states.values()]


def test_two_sources_as_one(tmp_path: Path, write_folder: WriteFiles) -> None:
    folders = [aged(write_folder(tmp_path / name, FILES)) for name in "ab"]
    joined = JoinedSource(*map(open_source, folders))
    assert joined.file_states(joined.records) == [FileState(size, OLD) for size in (3, 3, 5, 3, 3, 5)]
    aged(folders[1], NEW)
    assert joined.file_states(joined.records[2:4]) == [FileState(5, OLD), FileState(3, NEW)]


def test_files_are_dealt_out_to_several_marks(tmp_path: Path, write_folder: WriteFiles) -> None:
    folder = aged(write_folder(tmp_path / "a", {f"cat/{number}.png": b"x" for number in range(10)}))
    source = open_source(folder)
    before = source.state_checksums(source.records, 4)
    os.utime(folder / "cat/6.png", ns=(NEW, NEW))
    now = source.state_checksums(source.records, 4)
    assert [one == other for one, other in zip(before, now, strict=True)] == [True, True, False, True]
    assert len(source.state_checksums(source.records[:3], 4)) == 3


def test_drawn_images_have_no_mark() -> None:
    source = DrawnSource()
    assert source.state_checksums(source.records) == []


def test_files_on_a_server(tmp_path: Path) -> None:
    root = UPath("memory://content/x")
    (root / "cat").mkdir(parents=True)
    (root / "cat/1.png").write_bytes(b"one")
    first, absent = remote_states(root, ["cat/1.png", "cat/2.png"])
    assert (first.size, absent) == (3, ABSENT)
    assert first.tag
    before = state_of(root / "cat/1.png")
    (root / "cat/1.png").write_bytes(b"two")
    assert state_of(root / "cat/1.png") != before
    assert state_of(tmp_path / "absent") == ABSENT


@pytest.mark.slow
def test_of_objects_in_a_bucket_the_etag_counts(s3: S3Server, tmp_path: Path, write_tar: WriteFiles) -> None:
    first, second = (s3.put(s3.new_bucket() + "/deep/down", FILES) for _ in range(2))
    before = mark(first)
    assert before == mark(second)  # moved to another bucket
    s3.put(first, {"dog/1.png": b"four!"})
    assert before != mark(first)
    assert mark(first, slice(2)) == mark(second, slice(2))
    tar = write_tar(tmp_path / "a.tar", FILES)
    address = s3.upload(tar, s3.new_bucket())
    of_tar = mark(address)
    assert of_tar == mark(s3.upload(tar, s3.new_bucket()))
    s3.upload(write_tar(tar, {**FILES, "dog/1.png": b"four!"}), address.rpartition("/")[0])
    assert of_tar != mark(address)


def test_a_server_that_does_not_answer_gives_no_mark(
    tmp_path: Path, write_folder: WriteFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(write_folder(tmp_path / "a", FILES))

    def failing(_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("sources.folder.local_states", failing)
    assert source.state_checksums(source.records) == []


@pytest.mark.parametrize("tag", ["ETag", "LastModified"])
def test_a_servers_version_counts(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sources.content.remote_info", lambda _: {"size": 3, tag: '"v1"', "name": "x"})
    assert state_of(UPath("memory://x")) == FileState(3, tag="v1")
