"""Shard files by plain tarfile, Pillow and webdataset."""

import io
import json
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image

from pipeline.dataset.shard_file import SampleMetadata, ShardWriter, encode_png, read_shard

METADATA = SampleMetadata(
    key="ILSVRC2012_val_00000293", label=7, wnid="n01514668", source="n01514668/x.JPEG", source_sha256="ab" * 32,
    index=3, batch=0, position=3, batch_size=4, clean_prediction=7, reconstructed_prediction=1,
    adversarial_prediction=2, losses=[0.5, 1.25],
)  # fmt: skip


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (3, 9, 13), dtype=np.uint8)


def write(path: Path, *samples: tuple[SampleMetadata, bytes]) -> bytes:
    with path.open("wb") as file:
        with ShardWriter(file) as writer:
            for metadata, png in samples:
                writer.write(metadata, png)
        assert not file.closed
    return path.read_bytes()


def test_images_survive_without_loss() -> None:
    image = noise(0)
    with Image.open(io.BytesIO(encode_png(image))) as png:
        assert (png.format, png.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(png), image.transpose(1, 2, 0))


def test_views_with_other_strides_give_the_same_bytes() -> None:
    image = noise(1)
    strided = np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert strided.strides != image.strides
    assert encode_png(strided) == encode_png(image)


def test_equal_samples_give_equal_bytes_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [(replace(METADATA, key=f"key-{index}"), encode_png(noise(index))) for index in range(3)]
    first = write(tmp_path / "a.tar", *samples)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert write(tmp_path / "b.tar", *samples) == first


def test_members_have_no_time_and_a_fixed_owner(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", (METADATA, b"png"))
    with tarfile.open(tmp_path / "a.tar") as tar:
        found = tar.getmembers()
    assert [member.name for member in found] == [f"{METADATA.key}.{kind}" for kind in ("cls", "json", "png")]
    owners = {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in found}
    assert owners == {(0, 0, 0, "advbn-gen", "advbn-gen")}
    assert all(member.isreg() and member.mode == 0o444 for member in found)


def test_members_hold_label_and_metadata(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", (METADATA, b"png"))
    with tarfile.open(tmp_path / "a.tar") as tar:
        content = {m.name.split(".")[1]: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    assert content["cls"] == b"7"
    assert content["png"] == b"png"
    assert json.loads(content["json"]) == vars(METADATA)


@pytest.mark.parametrize("length", [95, 100, 101, 180])
def test_long_keys_survive(tmp_path: Path, length: int) -> None:
    keys = [f"{index}_" + "k" * (length - 2) for index in range(2)]
    png = encode_png(noise(0))
    write(tmp_path / "long.tar", *((replace(METADATA, key=key), png) for key in keys))
    assert [sample.key for sample in read_shard(tmp_path / "long.tar")] == keys
    read = list(wds.WebDataset(str(tmp_path / "long.tar"), shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in read] == keys


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", *((replace(METADATA, key=f"k{i}", label=i), bytes([i])) for i in range(3)))
    samples = list(read_shard(tmp_path / "a.tar"))
    assert [(sample.key, sample.label, sample.metadata["label"]) for sample in samples] == [
        ("k0", 0, 0), ("k1", 1, 1), ("k2", 2, 2),
    ]  # fmt: skip
    assert [sample.members["png"] for sample in samples] == [b"\0", b"\1", b"\2"]


def test_an_empty_tar_has_no_samples(tmp_path: Path) -> None:
    write(tmp_path / "none.tar")
    assert list(read_shard(tmp_path / "none.tar")) == []


def test_a_truncated_tar_is_an_error_and_not_fewer_samples(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tar", *((replace(METADATA, key=f"k{i}"), encode_png(noise(i))) for i in range(3)))
    (tmp_path / "a.tar").write_bytes(whole[:2000])
    with pytest.raises((tarfile.TarError, OSError, EOFError)):
        list(read_shard(tmp_path / "a.tar"))
