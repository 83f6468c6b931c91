"""Images in tars as a source: as the same folder is read."""

import os
import pickle
import tarfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from basics.errors import UserError
from sources.base import ImageRecord
from sources.opening import open_source
from sources.tar import source as tarball

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]

FILES = {f"{folder}/{number}.png": f"{folder}{number}".encode() * 100 for folder in "ba" for number in (2, 10, 1)}


@pytest.mark.parametrize("prefix", ["", "./", "top/", "./x/y/", "data/val/"])
@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_a_tar_is_read_as_the_same_folder_is(
    tmp_path: Path, write_tar: WriteFiles, write_folder: WriteFiles, prefix: str, name: str
) -> None:
    junk = {prefix + "a/._1.png": b"", prefix + ".DS_Store": b"", prefix + "a/readme.txt": b"text"}
    path = write_tar(tmp_path / name, {**junk, **{prefix + file: content for file, content in FILES.items()}})
    ours = open_source(str(path))
    folder = open_source(str(write_folder(tmp_path / "folder", FILES)))
    assert ours.records == folder.records
    assert ours.classes == folder.classes
    assert ours.digest() == folder.digest()
    assert [ours.read(record) for record in ours.records] == [FILES[record.name] for record in ours.records]


def test_the_real_sample_is_read_as_tarfile_reads_it(shared_data: Path) -> None:
    source = open_source(str(shared_data / "imagenet-sample-500.tar"))
    assert len(source.records) == 500
    assert source.classes.imagenet
    with tarfile.open(shared_data / "imagenet-sample-500.tar") as tar:
        for record in source.records[::25]:
            file = tar.extractfile(record.name)
            assert file is not None
            assert source.read(record) == file.read()


def test_several_tars_are_one_source(tmp_path: Path, write_tar: WriteFiles) -> None:
    write_tar(tmp_path / "x-0.tar", {"a/1.png": b"a1", "b/1.png": b"b1"})
    write_tar(tmp_path / "x-1.tar", {"a/2.png": b"a2"})
    source = open_source(str(tmp_path / "x-{0..1}.tar"))
    assert [(record.name, source.read(record)) for record in source.records] == [
        ("a/1.png", b"a1"),
        ("a/2.png", b"a2"),
        ("b/1.png", b"b1"),
    ]


def test_images_beside_the_class_folders_belong_to_no_class(tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "x.tar", {"thumbnail.png": b"", "top/a/1.png": b"", "top/b/1.png": b""})
    assert list(open_source(str(path)).records) == [ImageRecord("a/1.png", 0), ImageRecord("b/1.png", 1)]


def test_of_a_name_that_comes_twice_in_a_tar_the_last_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in (b"first", b"second"):
        (tmp_path / "1.png").write_bytes(content)
        with tarfile.open(tmp_path / "x.tar", "a") as tar:
            tar.add(tmp_path / "1.png", "a/1.png")
    source = open_source(str(tmp_path / "x.tar"))
    assert [source.read(record) for record in source.records] == [b"second"]
    assert "Left out of" in (said := capsys.readouterr().err)
    assert "x.tar: 1 file after which another of its name comes (a/1.png)." in said


def test_tars_that_were_put_together_are_refused_by_the_whole_program(tmp_path: Path, write_tar: WriteFiles) -> None:
    for name in ("x.tar", "x.tar.gz"):
        parts = [write_tar(tmp_path / f"{part}-{name}", {f"a/{part}.png": b""}) for part in "pq"]
        (tmp_path / name).write_bytes(b"".join(part.read_bytes() for part in parts))
        with pytest.raises(
            UserError, match=rf"{name} goes on after its end mark, with another tar at byte 10240; give"
        ):
            open_source(tmp_path / name)
        assert len(open_source(str(tmp_path / f"{{p,q}}-{name}")).records) == 2


def test_labels_after_the_first_members_make_shards(tmp_path: Path, write_tar: WriteFiles) -> None:
    files = {f"notes/{number:03}.txt": b"" for number in range(200)}
    path = write_tar(tmp_path / "x.tar", {**files, "k/a.png": b"image", "k/a.cls": b"7"})
    assert [record.label for record in open_source(path).records] == [7]


@pytest.mark.parametrize("text", ["json", "txt", "index"])
def test_samples_without_labels_are_refused_where_their_folder_would_be_the_class(
    tmp_path: Path, write_tar: WriteFiles, text: str
) -> None:
    one = write_tar(tmp_path / "one.tar", {f"k/{name}": b"" for name in ("a.png", f"a.{text}", "b.png", f"b.{text}")})
    with pytest.raises(
        UserError, match=rf"samples of .*one\.tar have no labels: k/a\.{text} .* no \.cls, .*one folder k"
    ):
        open_source(one)
    flat = write_tar(tmp_path / "flat.tar", {"a.png": b"", f"a.{text}": b""})
    with pytest.raises(
        UserError, match=rf"samples of .*flat\.tar have no labels: a\.{text} .* or a label list as --lab"
    ):
        open_source(flat)
    (tmp_path / "labels").write_text("a.png n01440764\n")
    assert [record.label for record in open_source(flat, labels=tmp_path / "labels").records] == [0]


def test_texts_beside_the_images_of_class_folders_are_named(
    tmp_path: Path, write_tar: WriteFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(tmp_path / "x.tar", {"a/1.png": b"", "a/1.xml": b"", "b/2.png": b"", "b/2.xml": b""})
    assert open_source(path).classes.names == ("a", "b")
    assert capsys.readouterr().err.splitlines() == [
        f"The folders of {path} are taken for classes; files beside the images (such as a/1.xml) are not read."
    ]


def test_what_lies_outside_the_folder_of_the_classes_is_named(
    tmp_path: Path, write_tar: WriteFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(
        tmp_path / "x.tar", {"top/a/1.png": b"", "top/b/1.png": b"", "films/c.gif": b"", "top/b/2.gif": b""}
    )
    assert open_source(path).classes.names == ("a", "b")
    assert capsys.readouterr().err == (
        f"Left out of {path}: 1 file of another kind (b/2.gif), 1 other file or folder outside the class folders "
        "(films/c.gif).\n"
    )


def test_of_the_other_splits_of_a_tar_only_the_images_are_counted(
    tmp_path: Path, write_tar: WriteFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("d/train/a/1.png", "d/train/a/2.png", "d/train/b.gif", "d/val/a/1.png", "d/val/b/1.png")
    path = write_tar(tmp_path / "x.tar", dict.fromkeys(names, b""))
    assert len(open_source(path).records) == 2
    assert capsys.readouterr().err == f"Left out of {path}: 2 images of other splits (such as d/train/a/1.png).\n"


def test_a_name_that_comes_in_two_tars_is_refused(tmp_path: Path, write_tar: WriteFiles) -> None:
    for number in (0, 1):
        write_tar(tmp_path / f"x-{number}.tar", {"a/1.png": b""})
    with pytest.raises(UserError, match=r"x-1\.tar holds a/1\.png, as .*x-0\.tar does; take one away"):
        open_source(str(tmp_path / "x-{0,1}.tar"))


def test_a_source_is_read_after_pickling_and_by_threads(tmp_path: Path, write_tar: WriteFiles) -> None:
    source = open_source(str(write_tar(tmp_path / "x.tar", FILES)))
    source.read(source.records[0])  # opens the tar, which must not travel
    copy = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(copy.read, list(copy.records) * 20))
    assert contents == [FILES[record.name] for record in source.records] * 20


def test_more_tars_than_may_be_open_are_read_and_closed_again(
    tmp_path: Path, write_tar: WriteFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarball, "_OPEN_TARS", 3)
    for number in range(12):
        write_tar(tmp_path / f"x-{number:02}.tar", {f"a/{number}.png": str(number).encode()})
    source = open_source(str(tmp_path / "x-{00..11}.tar"))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(2):
        assert [source.read(record) for record in source.records] == [
            record.name[2:-4].encode() for record in source.records
        ]
    assert len(os.listdir("/proc/self/fd")) <= before + 3  # noqa: PTH208


def test_a_tar_that_shrank_is_an_os_error(tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    source = open_source(str(path))
    with path.open("r+b") as file:
        file.truncate(600)
    with pytest.raises(OSError, match="has become shorter since it was listed"):
        source.read(source.records[-1])


def test_labels_for_a_tar_of_class_folders_are_refused(tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    with pytest.raises(UserError, match=r"x\.tar has class folders, which say the labels"):
        open_source(str(path), labels=str(tmp_path / "labels.txt"))


def test_a_tar_without_images_is_refused(tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "x.tar", {"a/readme.txt": b""})
    with pytest.raises(UserError, match=r"x\.tar holds no image; give a tar of class folders or WebDataset shards"):
        open_source(str(path))
