"""The published files of CIFAR-10 and CIFAR-100, made with few pictures."""

import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from basics.errors import UserError
from sources.base import Source
from sources.decode import decode_rgb
from sources.opening import open_source

Planes = npt.NDArray[np.uint8]
"""Pictures (N, 3, 32, 32)."""

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HUNDRED = tuple(f"thing{number:02}" for number in range(100))
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


def pictures(seed: int, count: int, classes: int) -> tuple[Planes, list[int]]:
    dice = np.random.default_rng(seed)
    return dice.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), dice.integers(0, classes, count).tolist()


def ten() -> dict[str, tuple[Planes, list[int]]]:
    return {file: pictures(seed, 7, 10) for seed, file in enumerate([*BATCHES, "test_batch"])}


def hundred() -> dict[str, tuple[Planes, list[int]]]:
    return {"train": pictures(1, 9, 100), "test": pictures(2, 5, 100)}


def binary(planes: Planes, labels: list[int], before: bytes = b"") -> bytes:
    return b"".join(before + bytes([label]) + plane.tobytes() for plane, label in zip(planes, labels, strict=True))


def pickled(value: Any) -> bytes:
    """Return a pickle as Python 2 wrote those that are published: protocol 2, all texts as strings of bytes."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        by_columns = b"\x88" if value.flags.fnc else b"\x89"
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        items = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
        sides = b"".join(map(_opcodes, value.shape)) + b"\x86"
        return made + b"(K\x01" + sides + items + by_columns + _opcodes(value.tobytes("A")) + b"tb"
    if isinstance(value, dict):
        pairs = b"".join(_opcodes(key.encode()) + _opcodes(item) for key, item in value.items())
        return b"}(" + pairs + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    return b"T" + struct.pack("<i", len(value)) + bytes(value)


def data(planes: Planes) -> Planes:
    return planes.reshape(len(planes), -1)


def ten_binary() -> dict[str, bytes]:
    files = {f"{file}.bin": binary(*content) for file, content in ten().items()}
    return {**files, "batches.meta.txt": "\n".join([*TEN, "", ""]).encode(), "readme.html": b"text"}


def ten_python() -> dict[str, bytes]:
    files = {
        file: pickled({"batch_label": b"a batch", "labels": labels, "data": data(planes), "filenames": [b"x.png"]})
        for file, (planes, labels) in ten().items()
    }
    names = [name.encode() for name in TEN]
    return {**files, "batches.meta": pickled({"num_vis": 3072, "label_names": names}), "readme.html": b"text"}


def hundred_binary() -> dict[str, bytes]:
    files = {f"{file}.bin": binary(*content, before=b"\x13") for file, content in hundred().items()}
    return {**files, "fine_label_names.txt": "\n".join(HUNDRED).encode(), "coarse_label_names.txt": b"group\n" * 20}


def hundred_python() -> dict[str, bytes]:
    files = {
        file: pickled({"coarse_labels": [0] * len(labels), "fine_labels": labels, "data": data(planes)})
        for file, (planes, labels) in hundred().items()
    }
    return {**files, "meta": pickled({"fine_label_names": [name.encode() for name in HUNDRED]})}


FORMS: dict[str, Callable[[], dict[str, bytes]]] = {
    "cifar-10-batches-bin": ten_binary,
    "cifar-10-batches-py": ten_python,
    "cifar-100-binary": hundred_binary,
    "cifar-100-python": hundred_python,
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, folder: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def check(source: Source, form: str, split: str) -> None:
    """Every picture is there once, under its name and label, with its pixels."""
    names, tables = (TEN, ten()) if "10-" in form else (HUNDRED, hundred())
    expected = {
        f"{names[label]}/{file}-{index:05}.png": (label, plane.transpose(1, 2, 0).tobytes())
        for file, (planes, labels) in tables.items()
        if file.startswith("test") is (split == "test")
        for index, (plane, label) in enumerate(zip(planes, labels, strict=True))
    }
    found = {
        record.name: (record.label, decode_rgb(source.read(record), record.name).tobytes()) for record in source.records
    }
    assert found == expected
    assert len(source.records) == len(expected)
    assert (source.classes.names, source.classes.imagenet) == (names, False)
    assert [record.label for record in source.records] == sorted(record.label for record in source.records)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("form", FORMS)
def test_all_pictures_are_found_wherever_the_files_lie(tmp_path: Path, form: str, split: str) -> None:
    files = FORMS[form]()
    write(tmp_path / "above" / form, files)
    write(tmp_path / "renamed", files)
    (tmp_path / "beside").mkdir()
    for path in (
        tmp_path / "above" / form,
        tmp_path / "above",
        tmp_path / "renamed",
        pack(tmp_path / "some.tar", form, files),
        pack(tmp_path / "beside" / f"{form}.tar.gz", form, files),
        tmp_path / "beside",
    ):
        check(open_source(path, split=split), form, split)


def test_both_versions_are_the_same_source(tmp_path: Path) -> None:
    sources = [open_source(write(tmp_path / form, FORMS[form]())) for form in list(FORMS)[:2]]
    assert sources[0].digest() == sources[1].digest()
    contents = [[source.read(record) for record in source.records] for source in sources]
    assert contents[0] == contents[1]
    assert sources[0].digest() == open_source(tmp_path).digest()


def test_pickles_of_either_python_are_read(tmp_path: Path) -> None:
    planes, labels = ten()["test_batch"]
    old = pickled({"labels": labels, "data": data(planes)})
    assert np.array_equal(pickle.loads(old, encoding="bytes")[b"data"], data(planes)), "the made-up pickle is none"
    new = pickle.dumps({"labels": labels, "data": data(planes)}, protocol=4)
    for content in (old, new):
        check(open_source(write(tmp_path, {**ten_python(), "test_batch": content})), "cifar-10-batches-py", "test")


def test_val_is_the_test_part(tmp_path: Path) -> None:
    path = write(tmp_path, ten_binary())
    assert open_source(path).digest() == open_source(path, split="test").digest()
    with pytest.raises(UserError, match="has the splits train and test, and no odd"):
        open_source(path, split="odd")


@pytest.mark.parametrize("packed", [True, False])
def test_a_source_is_read_after_pickling_and_by_threads(tmp_path: Path, packed: bool) -> None:
    path = pack(tmp_path / "x.tar.gz", "x", ten_binary()) if packed else write(tmp_path, ten_binary())
    source = open_source(path, split="train")
    source.read(source.records[0])
    content = pickle.dumps(source)
    assert len(content) < 35 * 3072 / 4, "pixels travel"
    copy = pickle.loads(content)
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(copy.read, list(copy.records) * 5))
    assert contents == [source.read(record) for record in source.records] * 5


class Trap:
    """A pickle of it makes a folder when it is read by `pickle.load`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, file: str) -> None:
    content = pickle.dumps({b"labels": Trap(tmp_path / "trap")})
    path = write(tmp_path / "files", {**ten_python(), file: content})
    with pytest.raises(UserError, match=rf"{file} of .*asks for posix\.mkdir to be run, which is never done"):
        open_source(path, split="train")
    assert not (tmp_path / "trap").exists()
    pickle.loads(content)
    assert (tmp_path / "trap").exists(), "loading this pickle runs code, or the test proves nothing"


PIXELS = ten()["test_batch"][0]
FORTRAN = np.asfortranarray(data(PIXELS))


@pytest.mark.parametrize(
    ("form", "damaged", "message"),
    [
        ("cifar-10-batches-bin", {"test_batch.bin": None}, "lacks test_batch.bin, a file of the published cifar-10-b"),
        ("cifar-10-batches-bin", {"test_batch.bin": b""}, "has 0 bytes, no whole number of pictures of 3073"),
        ("cifar-10-batches-bin", {"test_batch.bin": bytes(3072)}, "has 3072 bytes, no whole number"),
        ("cifar-10-batches-bin", {"test_batch.bin": b"\x0a" * 3073}, "gives its picture 0 the label 10, of 10 classes"),
        ("cifar-10-batches-bin", {"batches.meta.txt": None}, r"lacks batches\.meta\.txt"),
        ("cifar-10-batches-bin", {"batches.meta.txt": b"cat\ndog\n"}, "does not name 10 classes"),
        ("cifar-10-batches-bin", {"batches.meta.txt": b"\xff\n" * 10}, "holds no names of classes"),
        ("cifar-10-batches-bin", {"batches.meta.txt": "\n".join(["../cat", *TEN[1:]]).encode()}, "does not name"),
        ("cifar-10-batches-py", {"test_batch": None}, "lacks test_batch"),
        ("cifar-10-batches-py", {"test_batch": b"no pickle"}, "is damaged or no pickled table"),
        ("cifar-10-batches-py", {"test_batch": ten_python()["test_batch"][:-5000]}, "is damaged or no pickled table"),
        ("cifar-10-batches-py", {"test_batch": pickle.dumps([1, 2])}, "is damaged or no pickled table"),
        ("cifar-10-batches-py", {"test_batch": pickled({"labels": [1]})}, "holds no labels and pixels"),
        ("cifar-10-batches-py", {"test_batch": pickled({"labels": [1], "data": data(PIXELS)})}, "has not 3072 bytes"),
        ("cifar-10-batches-py", {"test_batch": pickled({"labels": [1] * 7, "data": FORTRAN})}, "not stored row by row"),
        ("cifar-10-batches-py", {"test_batch": pickled({"labels": [b""] * 7, "data": data(PIXELS)})}, "the label b''"),
        ("cifar-10-batches-py", {"batches.meta": pickled({})}, "does not name 10 classes"),
        ("cifar-10-batches-py", {"batches.meta": pickled({"label_names": [1]})}, "holds no names of classes"),
        ("cifar-100-binary", {"test.bin": bytes(3073)}, "no whole number of pictures of 3074"),
        ("cifar-100-binary", {"test.bin": b"\x64" * 3074}, "the label 100, of 100 classes"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, form: str, damaged: dict[str, bytes | None], message: str) -> None:
    files = {**FORMS[form](), **damaged}
    path = write(tmp_path / form, {name: content for name, content in files.items() if content is not None})
    with pytest.raises(UserError, match=rf"{message}.*; download or unpack it again"):
        open_source(path)


def test_a_file_that_shrank_is_an_os_error(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, ten_binary()))
    os.truncate(tmp_path / "test_batch.bin", 100)
    with pytest.raises(OSError, match="has become shorter since it was listed"):
        [source.read(record) for record in source.records]


def test_a_label_list_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, ten_binary())
    with pytest.raises(UserError, match=r"holds cifar-10-batches-bin, which says the labels; leave out"):
        open_source(path, labels=tmp_path / "labels.txt")


def test_two_data_sets_in_a_folder_are_refused(tmp_path: Path) -> None:
    for form, files in FORMS.items():
        write(tmp_path / form, files())
    with pytest.raises(UserError, match="holds both CIFAR-10 and CIFAR-100; give the folder of one"):
        open_source(tmp_path)


def test_one_file_that_happens_to_be_called_so_tells_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"train": b"", "readme.txt": b""})
    with pytest.raises(UserError, match="holds no images"):
        open_source(tmp_path)


def test_images_beside_the_published_files_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar", "cifar-10-batches-bin", {**ten_binary(), "cat/1.png": b""})
    with pytest.raises(
        UserError, match=r"x\.tar holds cifar-10-batches-bin and images .*cat/1\.png\); give a tar of one"
    ):
        open_source(path)
