"""A part of a source: what is sent to another process for a few images."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from sources.base import Source
from sources.drawn.shifts import ShiftSource
from sources.drawn.source import DrawnSource
from sources.joined import JoinedSource
from sources.opening import open_source
from tests.s3 import S3Server

WriteFiles = Callable[[Path, Mapping[str, bytes]], Path]
MANY = {f"class{number % 3}/{number:05}.png": b"image %d" % number for number in range(3000)}


def folder(root: Path, write_folder: WriteFiles, _: WriteFiles) -> Source:
    return open_source(write_folder(root / "images", MANY))


def tars(root: Path, _: WriteFiles, write_tar: WriteFiles) -> Source:
    for label in range(3):
        write_tar(root / f"x-{label}.tar", {name: MANY[name] for name in MANY if name.startswith(f"class{label}")})
    return open_source(root)


def shards(root: Path, _: WriteFiles, write_tar: WriteFiles) -> Source:
    for shard in range(5):
        pairs = ((f"{number:05}.png", f"{number:05}.cls") for number in range(shard * 200, shard * 200 + 200))
        files = {name: content for png, cls in pairs for name, content in ((png, png.encode()), (cls, b"7"))}
        write_tar(root / f"x-{shard}.tar", files)
    return open_source(root)


def cifar(root: Path, write_folder: WriteFiles, _: WriteFiles) -> Source:
    names = "\n".join(f"thing{number:02}" for number in range(100)).encode()
    pixels = np.random.default_rng(0).integers(0, 100, (500, 2 + 3 * 32 * 32), dtype=np.uint8).tobytes()
    files = {"train.bin": pixels, "test.bin": pixels[: 3074 * 300], "fine_label_names.txt": names}
    return open_source(write_folder(root / "cifar-100-binary", files))


def drawn(*_: object) -> Source:
    return DrawnSource(size=16)


def shifted(*_: object) -> Source:
    return ShiftSource("imagenet-c/noise/shot_noise/1", size=16)


def joined(root: Path, write_folder: WriteFiles, write_tar: WriteFiles) -> Source:
    return JoinedSource(folder(root / "a", write_folder, write_tar), tars(root / "b", write_folder, write_tar))


@pytest.mark.slow
@pytest.mark.parametrize("make", [folder, tars, shards, cifar, drawn, shifted, joined], ids=lambda make: make.__name__)
def test_a_part_is_small_and_read_as_the_whole_is(
    tmp_path: Path, write_folder: WriteFiles, write_tar: WriteFiles, make: Callable[..., Source]
) -> None:
    whole = make(tmp_path, write_folder, write_tar)
    before = len(whole.records)
    # Spread over the source, so that several tars are needed, and not in its order.
    records = list(whole.records)[:: -(before // 32)][:32]
    pickled = pickle.dumps(whole.part(records))
    assert len(pickled) < min(8_000, len(pickle.dumps(whole)))
    part = pickle.loads(pickled)
    assert type(part) is type(whole)
    assert part.records == records
    assert (part.address, part.classes, part.order) == (whole.address, whole.classes, whole.order)
    assert [part.read(record) for record in records] == [whole.read(record) for record in records]
    # The whole is as it was.
    assert len(whole.records) == before
    assert whole.read(whole.records[0]) == make(tmp_path, write_folder, write_tar).read(whole.records[0])


def test_a_part_knows_no_other_image(tmp_path: Path, write_folder: WriteFiles, write_tar: WriteFiles) -> None:
    source = tars(tmp_path, write_folder, write_tar)
    with pytest.raises(KeyError):
        source.part(source.records[:1]).read(source.records[-1])


@pytest.mark.slow
def test_a_part_of_a_remote_source(
    s3: S3Server, tmp_path: Path, write_folder: WriteFiles, write_tar: WriteFiles
) -> None:
    local = shards(tmp_path, write_folder, write_tar)
    whole = open_source(s3.upload(tmp_path, s3.new_bucket()))
    pickled = pickle.dumps(whole.part(whole.records[:32]))
    assert len(pickled) < 8_000
    part = pickle.loads(pickled)
    assert [part.read(record) for record in part.records] == [local.read(record) for record in local.records[:32]]
