import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from braceexpand import braceexpand

from basics.errors import UserError
from sources.base import ImageRecord
from sources.decode import decode_rgb
from sources.opening import expand_braces, open_source

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]

CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize(
    "pattern",
    [
        "x-{000000..000031}.tar",
        "x-{8..11}.tar",
        "x-{3..1}.tar",
        "x-{08..11}.tar",
        "{a,b,c}-{0..1}.tar",
        "plain.tar",
        "{single}.tar",
    ],
)
def test_braces_expand_as_webdataset_expands_them(pattern: str) -> None:
    assert expand_braces(pattern) == list(braceexpand(pattern))


def test_a_name_with_braces_that_exists_is_no_pattern(tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "x-{0..1}.tar", {"a/1.png": b""})
    assert len(open_source(path).records) == 1


def test_missing_shards_of_a_pattern_are_refused(tmp_path: Path, write_tar: WriteFiles) -> None:
    write_tar(tmp_path / "x-1.tar", {"a/1.png": b""})
    with pytest.raises(UserError, match=r"2 of the 3 files of .*\{0\.\.2\}\.tar do not exist \(such as .*x-0\.tar\)"):
        open_source(str(tmp_path / "x-{0..2}.tar"))


def test_the_address_is_kept_as_given(
    tmp_path: Path, write_folder: WriteFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"images/a/1.png": b"content"})
    monkeypatch.chdir(tmp_path)
    source = open_source("images")
    assert source.address == "images"
    source = open_source(f"file://{tmp_path}/images")
    assert source.address == f"file://{tmp_path}/images"
    assert source.read(source.records[0]) == b"content"


def test_an_order_file_is_taken(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path / "images", {"a/1.png": b"", "b/1.png": b""})
    (tmp_path / "order").write_text("b/1.png\na/1.png\n")
    source = open_source(tmp_path / "images", order=tmp_path / "order")
    assert list(source.records) == [ImageRecord("b/1.png", 1), ImageRecord("a/1.png", 0)]
    assert source.order.startswith("file:")
    assert source.digest() != open_source(tmp_path / "images").digest()


def test_a_folder_of_tars_is_read_split_by_split(tmp_path: Path, write_tar: WriteFiles) -> None:
    write_tar(tmp_path / "x-train-0.tar", {"a/train.png": b""})
    write_tar(tmp_path / "x-val-0.tar", {"a/val.png": b""})
    assert [record.name for record in open_source(tmp_path).records] == ["a/val.png"]
    assert [record.name for record in open_source(tmp_path, split="train").records] == ["a/train.png"]
    with pytest.raises(UserError, match=r"holds files of the split train, val and none of test"):
        open_source(tmp_path, split="test")


def test_archives_of_other_kinds_beside_tars_are_named(
    tmp_path: Path, write_tar: WriteFiles, write_folder: WriteFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write_tar(tmp_path / f"x-{number}.tar", {f"a/{number}.png": b"", f"b/{number}.png": b""})
    write_folder(tmp_path, {"README.md": b"", "ILSVRC2012_devkit_t12.tar.gz": b""})
    assert len(open_source(tmp_path).records) == 4
    assert capsys.readouterr().err == ""
    write_folder(tmp_path, {"x-2.tar.zst": b"", "more/x-3.tar": b""})
    assert len(open_source(tmp_path).records) == 4
    assert capsys.readouterr().err == f"Left out of {tmp_path}: 2 files of other kinds (such as more/x-3.tar).\n"


def test_tars_are_known_in_any_case(tmp_path: Path, write_tar: WriteFiles, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("a.TAR", "b.Tar", "c.tar", "d.tar.GZ", "e.TGZ")):
        write_tar(tmp_path / name, {f"a/{number}.png": b"", f"b/{number}.png": b""})
    assert len(open_source(tmp_path).records) == 10
    assert capsys.readouterr().err == ""


def test_archives_that_a_data_set_with_a_manifest_leaves_out_are_named(
    tmp_path: Path, write_tar: WriteFiles, write_folder: WriteFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "x-0.tar", {"a.png": b"", "a.cls": b"0"})
    write_folder(tmp_path, {"manifest.json": b"{}", "stats/x.parquet": b"", "preview/1.png": b""})
    assert len(open_source(tmp_path).records) == 1
    assert capsys.readouterr().err == ""
    write_folder(tmp_path, {"x-1.tar.ZST": b"", "x-2.tar.xz": b"", "more/x-3.TAR": b""})
    assert len(open_source(tmp_path).records) == 1
    assert capsys.readouterr().err == f"Left out of {tmp_path}: 3 files of other kinds (such as more/x-3.TAR).\n"


@pytest.mark.parametrize("image", ["preview/sample.png", "sample.png"])
def test_shards_beside_images_are_unclear(
    tmp_path: Path, write_tar: WriteFiles, write_folder: WriteFiles, image: str
) -> None:
    write_tar(tmp_path / "a-0.tar", {"a.png": b"", "a.cls": b"0"})
    write_folder(tmp_path, {image: b""})
    with pytest.raises(UserError, match=rf"holds shards \(such as a-0\.tar\) and images \(such as {image}\), so it"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "a-0.tar").records) == 1
    assert len(open_source(f"{tmp_path}/a-{{0..0}}.tar").records) == 1


def test_half_a_tar_beside_class_folders_is_no_hindrance(tmp_path: Path, write_folder: WriteFiles) -> None:
    write_folder(tmp_path, {"cat/1.png": b"", "dog/1.png": b"", "backup.tar": b"x" * 700})
    assert open_source(tmp_path).classes.names == ("cat", "dog")


def test_tars_in_the_folder_of_a_split_are_read(tmp_path: Path, write_tar: WriteFiles) -> None:
    write_tar(tmp_path / "val" / "0.tar", {"a/1.png": b""})
    (tmp_path / "train").mkdir()
    assert len(open_source(tmp_path).records) == 1


TWO_PARTS = {
    "class folders": {"train": ["train/"], "test": ["test/"]},
    "tars in folders": {"train": ["train/0.tar", "train/1.tar.gz"], "test": ["test/all.tar.gz"]},
    "a tar each": {"train": ["train.tar"], "test": ["test.tar.gz"]},
    "tars side by side": {"train": ["x10-train-0.tar.gz", "x10-train-1.tar.gz"], "test": ["x10-test.tar.gz"]},
}
"""Where the images of a data set of two parts may lie: class folders below a folder, or in tars."""


@pytest.mark.parametrize("layout", TWO_PARTS)
def test_data_sets_of_two_parts_are_read_in_any_layout(
    tmp_path: Path, write_tar: WriteFiles, write_folder: WriteFiles, layout: str
) -> None:
    expected: dict[str, dict[str, bytes]] = {}
    for part, paths in TWO_PARTS[layout].items():
        for number, path in enumerate(paths):
            files = {f"{name}/{part}-{number}.png": f"{name}{part}{number}".encode() for name in ("cat", "bird")}
            expected[part] = {**expected.get(part, {}), **files}
            (write_folder if path.endswith("/") else write_tar)(tmp_path / path, files)
    for split, part in (("train", "train"), ("test", "test"), ("val", "test")):
        source = open_source(tmp_path, split=split)
        assert {record.name: source.read(record) for record in source.records} == expected[part]
        assert source.classes.names == ("bird", "cat")
        assert all(source.classes.names[record.label] == record.name.split("/")[0] for record in source.records)


@pytest.mark.slow
@pytest.mark.parametrize("folders", [True, False])
def test_all_of_cifar_10_is_found_in_its_tars(tmp_path: Path, shared_data: Path, folders: bool) -> None:
    for tar in shared_data.glob("cifar10-*.tar.gz"):
        folder = tmp_path / ("train" if "train" in tar.name else "test") if folders else tmp_path
        folder.mkdir(exist_ok=True)
        (folder / tar.name).symlink_to(tar.absolute())
    for split, per_class in (("train", 5000), ("test", 1000)):
        source = open_source(tmp_path, split=split)
        assert Counter(record.label for record in source.records) == dict.fromkeys(range(10), per_class)
        assert source.classes.names == CIFAR_10
        last = source.records[-1]
        assert decode_rgb(source.read(last), last.name).size == (32, 32)


def test_class_folders_go_before_tars_beside_them(
    tmp_path: Path, write_tar: WriteFiles, write_folder: WriteFiles
) -> None:
    write_tar(tmp_path / "backup.tar", {"a/1.png": b""})
    write_folder(tmp_path, {"b/2.png": b""})
    assert list(open_source(tmp_path).records) == [ImageRecord("b/2.png", 0)]


@pytest.mark.parametrize("files", [[], ["a/readme.txt"], ["._x.jpg"], ["._x.tar"]])
def test_a_folder_without_images_is_refused(tmp_path: Path, write_folder: WriteFiles, files: list[str]) -> None:
    write_folder(tmp_path, dict.fromkeys(files, b""))
    with pytest.raises(UserError, match=r"holds no images; give a folder of class folders, a tar or WebDataset"):
        open_source(tmp_path)


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist; check the path"):
        open_source(tmp_path / "nowhere")


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "circle").symlink_to("circle")
    with pytest.raises(UserError, match=r"circle cannot be read|cannot be read \(Too many levels"):
        open_source(tmp_path)


@pytest.mark.usefixtures("unprivileged")
def test_a_folder_that_may_not_be_listed_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        with pytest.raises(UserError, match=r"closed cannot be read \(Permission denied\); check its permissions"):
            open_source(tmp_path)
    finally:
        closed.chmod(0o755)


@pytest.mark.slow
def test_listing_a_large_folder_is_cheap(tmp_path: Path) -> None:
    """A hundredth of ImageNet's training set in bytes: the whole must fit into 1 GiB."""
    import tracemalloc

    for label in range(10):
        folder = tmp_path / f"class{label}"
        folder.mkdir()
        for number in range(1281):
            os.mknod(folder / f"ILSVRC2012_train_{number:08}.JPEG")
    tracemalloc.start()
    try:
        source = open_source(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(source.records) == 12_810
    assert peak < 2**30 / 100 / 2
