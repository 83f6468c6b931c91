"""Class folders and flat folders as a source, compared with torchvision's ImageFolder."""

import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from basics.errors import UserError
from sources.base import ImageRecord
from sources.folder import find_split
from sources.listing import list_folder
from sources.opening import open_source

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]


AWKWARD = [
    "b/2.png",
    "b/10.PNG",
    "b/1.jpg",
    "a-b/z.jpeg",
    "a/s/1.webp",
    "a/s-2/1.tif",
    "a/s/t/1.bmp",
    "a/z.ppm",
    "B/é.png",
    "a/with space.png",
    "b/dir.png/1.png",
]


def test_order_and_labels_are_those_of_torchvisions_image_folder(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path, {name: name.encode() for name in [*AWKWARD, "a/readme.txt"]})
    (tmp_path / "b" / "linked").symlink_to(tmp_path / "a", target_is_directory=True)
    theirs = ImageFolder(str(tmp_path))
    ours = open_source(str(tmp_path))
    assert [(str(tmp_path / record.name), record.label) for record in ours.records] == theirs.samples
    assert list(ours.classes.names) == theirs.classes
    assert len(ours.records) > len(AWKWARD)
    assert ours.order == "ImageFolder"
    assert all(ours.read(record) == (tmp_path / record.name).read_bytes() for record in ours.records)


def test_imagenet_classes_keep_their_index_where_torchvision_counts_from_0(
    tmp_path: Path, write_folder: WriteFiles
) -> None:
    write_folder(tmp_path, {"n15075141/1.png": b"", "n01443537/1.png": b""})
    source = open_source(str(tmp_path))
    assert list(source.records) == [ImageRecord("n01443537/1.png", 1), ImageRecord("n15075141/1.png", 999)]
    assert source.classes.imagenet
    assert source.classes.count == 1000


def test_hidden_files_and_folders_without_images_are_no_classes(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(
        tmp_path,
        {
            "a/1.png": b"",
            "a/._1.png": b"",
            ".DS_Store": b"",
            ".cache/1.png": b"",
            "__MACOSX/a/._1.png": b"",
            "beside.png": b"",
            "text/x.txt": b"",
        },
    )
    (tmp_path / "empty").mkdir()
    source = open_source(str(tmp_path))
    assert list(source.records) == [ImageRecord("a/1.png", 0)]
    assert source.classes.names == ("a",)


def test_a_source_can_be_pickled_and_read_by_threads(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path, {f"a/{number}.png": str(number).encode() for number in range(50)})
    source = pickle.loads(pickle.dumps(open_source(str(tmp_path))))
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(source.read, source.records))
    assert contents == [record.name[2:-4].encode() for record in source.records]


def test_a_file_that_has_gone_is_an_os_error(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path, {"a/1.png": b""})
    source = open_source(str(tmp_path))
    (tmp_path / "a/1.png").unlink()
    with pytest.raises(FileNotFoundError):
        source.read(source.records[0])


def test_labels_for_class_folders_are_refused(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path, {"a/1.png": b"", "b/1.png": b"", "labels.txt": b"1.png 0\n"})
    with pytest.raises(UserError, match=r"has class folders, which say the labels; leave out .*labels\.txt"):
        open_source(str(tmp_path), labels=str(tmp_path / "labels.txt"))


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        (["val/a/1.png", "train/a/1.png"], "val", "val"),
        (["val/a/1.png", "train/a/1.png"], "train", "train"),
        (["val/1.png"], "val", "val"),
        (["validation/a/1.png"], "val", "validation"),
        (["validation/a/1.png", "val/a/1.png"], "validation", "validation"),
        (["val/a/1.png", "notes/x.txt"], "val", "val"),
        (["odd/a/1.png"], "odd", "odd"),
        (["test/a/1.png", "train/a/1.png"], "val", "test"),
        (["test/a/1.png", "train/a/1.png"], "test", "test"),
        (["test/a/1.png", "train/a/1.png", "val/a/1.png"], "val", "val"),
        (["val/1.png", "cat/1.png"], "val", "."),
        (["a/1.png"], "val", "."),
    ],
)
def test_the_folder_of_a_split_is_entered_unless_it_is_a_class(
    tmp_path: Path, write_folder: WriteFiles, files: list[str], split: str, expected: str
) -> None:
    write_folder(tmp_path, dict.fromkeys(files, b""))
    assert find_split(list_folder(tmp_path), split).path == tmp_path / expected


def test_a_split_that_is_not_there_is_refused(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path, {"train/a/1.png": b"", "val/a/1.png": b""})
    with pytest.raises(UserError, match=r"has no folder named test, but train, val; give another --split"):
        open_source(str(tmp_path), split="test")
