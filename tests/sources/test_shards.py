import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from basics.errors import UserError
from sources.base import ClassMap, ImageRecord
from sources.classes import imagenet_map
from sources.opening import open_source

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]


def sample(key: str, label: int, image: bytes = b"", **extra: Any) -> dict[str, bytes]:
    files = {f"{key}.png": image or key.encode(), f"{key}.cls": str(label).encode()}
    return files | ({f"{key}.json": json.dumps(extra).encode()} if extra else {})


def test_the_samples_are_those_that_webdataset_reads(tmp_path: Path, write_tar: WriteFiles) -> None:
    keys = ["b", "a", "dir/c", "./d"]
    shards = [
        write_tar(
            tmp_path / f"x-{n}.tar", {k: v for i, key in enumerate(keys) for k, v in sample(f"{key}{n}", i).items()}
        )
        for n in range(2)
    ]
    theirs = {}
    for shard in shards:
        with shard.open("rb") as stream:  # its own opener leaves files open
            for entry in group_by_keys(tar_file_expander([{"url": shard.name, "stream": stream}])):
                theirs[entry["__key__"].removeprefix("./")] = (int(entry["cls"]), entry["png"])
    source = open_source(str(tmp_path))
    ours = {
        record.name.partition("/")[2].removesuffix(".png"): (record.label, source.read(record))
        for record in source.records
    }
    assert len(ours) == 8
    assert ours == theirs


def test_labels_are_sorted_as_numbers_and_names_within(tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "x.tar", {**sample("c", 10), **sample("b", 9), **sample("a", 10)})
    source = open_source(str(path))
    assert list(source.records) == [
        ImageRecord("9/b.png", 9),
        ImageRecord("10/a.png", 10),
        ImageRecord("10/c.png", 10),
    ]
    assert source.classes == ClassMap(names=tuple(map(str, range(11))), imagenet=False)
    assert source.order == "ImageFolder"


def test_the_manifest_says_what_the_labels_mean(tmp_path: Path, write_tar: WriteFiles) -> None:
    write_tar(tmp_path / "set-val-000000.tar", sample("a", 1, wnid="n01440764"))
    (tmp_path / "manifest.json").write_text('{"classes": {"imagenet": false, "names": ["cat", "dog"]}}')
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "x.png").touch()
    source = open_source(str(tmp_path))
    assert source.classes == ClassMap(names=("cat", "dog"), imagenet=False)
    assert list(source.records) == [ImageRecord("dog/a.png", 1)]


def test_a_manifest_without_classes_says_nothing(tmp_path: Path, write_tar: WriteFiles) -> None:
    write_tar(tmp_path / "x.tar", sample("a", 0))
    (tmp_path / "manifest.json").write_text("{}")
    assert open_source(str(tmp_path)).classes.names == ("0",)


def test_imagenet_shards_have_the_names_of_the_sorted_folders(tmp_path: Path, write_tar: WriteFiles) -> None:
    """So a data set made from ImageNet pairs with ImageNet record by record, up to the extension."""
    files = {**sample("y", 1, wnid="n01443537"), **sample("x", 0, wnid="n01440764")}
    source = open_source(str(write_tar(tmp_path / "x.tar", files)))
    assert source.classes == imagenet_map()
    assert [record.name for record in source.records] == ["n01440764/x.png", "n01443537/y.png"]


@pytest.mark.parametrize(
    "other",
    [sample("y", 2, wnid="n01443537"), sample("y", 1), sample("y", 1, source="n01443537"), sample("y", 1, wnid=3)],
    ids=["another index", "no json", "no wnid", "no text"],
)
def test_one_sample_without_proof_makes_the_labels_plain_numbers(
    tmp_path: Path, write_tar: WriteFiles, other: dict[str, bytes]
) -> None:
    path = write_tar(tmp_path / "x.tar", {**sample("x", 0, wnid="n01440764"), **other})
    assert open_source(str(path)).classes.imagenet is False


def test_equal_keys_in_two_shards_are_distinguished_by_the_shard(tmp_path: Path, write_tar: WriteFiles) -> None:
    for number in range(2):
        write_tar(
            tmp_path / f"x-{number}.tar", {**sample("0", 0, f"image {number}".encode()), **sample(f"k{number}", 0)}
        )
    source = open_source(str(tmp_path))
    assert {record.name: source.read(record) for record in source.records} == {
        "0/x-0/0.png": b"image 0",
        "0/x-1/0.png": b"image 1",
        "0/k0.png": b"k0",
        "0/k1.png": b"k1",
    }


@pytest.mark.parametrize("extension", ["jpg", "JPEG", "webp"])
def test_other_members_and_formats(tmp_path: Path, write_tar: WriteFiles, extension: str) -> None:
    files = {
        "__meta__": b"",
        "readme.txt": b"about",
        "._a.cls": b"junk",
        f"a.{extension}": b"image",
        "a.cls": b"3\n",
        "a.txt": b"text",
    }
    source = open_source(str(write_tar(tmp_path / "x.tar", files)))
    assert [(record.label, source.read(record)) for record in source.records] == [(3, b"image")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {**sample("a", 0), "b.cls": b"1"},
            r"The sample b in .*x\.tar needs one image and a cls, and has cls; repair it",
        ),
        ({**sample("a", 0), "b.png": b""}, r"The sample b in .*x\.tar needs .* and has png"),
        ({**sample("a", 0), "a.jpg": b""}, r"The sample a in .*x\.tar needs one image .* has cls, jpg, png"),
        ({"a.png": b"", "a.cls": b"cat"}, r"The cls of the sample a in .*x\.tar is not a class index \(b'cat'\)"),
        ({"a.png": b"", "a.cls": b"-1"}, r"The cls of the sample a .* is not a class index"),
        ({"x.txt": b"", ".a.cls": b"", "__meta__.txt": b""}, r"x\.tar holds no image"),
    ],
)
def test_broken_samples_are_refused(
    tmp_path: Path, write_tar: WriteFiles, files: dict[str, bytes], message: str
) -> None:
    path = write_tar(tmp_path / "x.tar", files)
    with pytest.raises(UserError, match=message):
        open_source(str(path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["b1.5x.png", "b1.5x.cls"],
            r"The sample b1 in .*x\.tar has the file b1\.5x\.(png|cls): a key ends at the first",
        ),
        (["b1.5x.cls", "b1.5x.png", "b1.6x.cls", "b1.6x.png"], r"The sample b1 in .* has the file b1\.[56]x\."),
        (["d/b1.5x.png", "d/b1.5x.cls"], r"The sample d/b1 in .* has the file d/b1\.5x\."),
        (["b1.png", "b1.cls", "b1.5x.png", "b1.5x.cls"], r"The sample b1 in .* has the file b1\.5x\.cls"),
        (["b1.5x.png"], r"The sample b1 in .* has the file b1\.5x\.png"),
        (
            ["b1.png", "b1.cls", "b1.PNG", "b1.CLS"],
            r"The sample b1 in .*x\.tar has png twice; take one of the two away",
        ),
    ],
)
def test_files_that_are_no_files_of_their_sample_are_refused(
    tmp_path: Path, write_tar: WriteFiles, names: list[str], message: str
) -> None:
    path = write_tar(tmp_path / "x.tar", {**sample("a", 0), **dict.fromkeys(names, b"1")})
    with pytest.raises(UserError, match=message):
        open_source(path)


def test_a_sample_that_comes_twice_in_a_row_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.png", "a.cls", "a.png", "a.cls"):
            (tmp_path / name).write_bytes(b"0")
            tar.add(tmp_path / name, name)
    with pytest.raises(UserError, match=r"The sample a in .*x\.tar has png twice"):
        open_source(tmp_path / "x.tar")


def test_names_in_upper_case_are_read_as_webdataset_reads_them(tmp_path: Path, write_tar: WriteFiles) -> None:
    files = {f"{number}.{end}": str(number % 2).encode() for number in range(4) for end in ("PNG", "CLS")}
    path = write_tar(tmp_path / "x.tar", files)
    with path.open("rb") as stream:
        theirs = [int(entry["cls"]) for entry in group_by_keys(tar_file_expander([{"url": "x", "stream": stream}]))]
    source = open_source(path)
    assert [record.label for record in source.records] == sorted(theirs) == [0, 0, 1, 1]
    assert [source.read(record) for record in source.records] == [b"0", b"0", b"1", b"1"]


def test_a_notice_says_what_belongs_to_no_sample(
    tmp_path: Path, write_tar: WriteFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts and the like are not worth one."""
    files = {**sample("a", 0), "a.mask.png": b"", "README.md": b"", "__meta__.txt": b"", "a.txt": b""}
    assert (
        len(open_source(write_tar(tmp_path / "quiet.tar", {**sample("a", 0), "b.json": b"", "LICENSE": b""})).records)
        == 1
    )
    assert capsys.readouterr().err == ""
    path = write_tar(tmp_path / "x.tar", {**files, "._a.png": b"", "b.gif": b""})
    assert len(open_source(path).records) == 1
    assert capsys.readouterr().err == (
        f"Left out of {path}: 1 file of another kind (b.gif), 1 hidden image or label (._a.png), "
        "1 further image of a sample (a.mask.png).\n"
    )


def test_a_sample_that_comes_twice_in_a_shard_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.png", "a.cls", "b.png", "b.cls", "a.png", "a.cls"):
            (tmp_path / name).write_bytes(b"0")
            tar.add(tmp_path / name, name)
    with pytest.raises(UserError, match=r"The sample 0/x/a\.png comes 2 times in the shards"):
        open_source(str(tmp_path / "x.tar"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"The manifest .*manifest\.json is damaged or no manifest"),
        ("[]", r"The manifest .* is damaged"),
        ('{"classes": {"names": ["a"]}}', r"The manifest .* is damaged"),
        ('{"classes": {"imagenet": false, "names": ["a"]}}', r"has the label 1, but .*manifest\.json names 1 classes"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, write_tar: WriteFiles, text: str, message: str
) -> None:
    write_tar(tmp_path / "x.tar", sample("a", 1))
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


def test_labels_for_shards_are_refused(tmp_path: Path, write_tar: WriteFiles) -> None:
    path = write_tar(tmp_path / "x.tar", sample("a", 1))
    with pytest.raises(UserError, match=r"x\.tar holds shards, which say the labels; leave out"):
        open_source(str(path), labels=str(tmp_path / "labels"))
