"""The predictions file: what goes in comes out, and is replaced as a whole or not at all."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from basics.errors import UserError
from downstream.predictions import DataColumns, PredictionFile, Predictions, Scored, ScoredData
from downstream.result_store import key_of
from tests.disk import resize

FACTS = {"data_fingerprint": "1", "samples": 3, "samples_sha256": "a"}


def columns(name: str = "val", **changed: Any) -> DataColumns:
    metadata = {"data": name, **FACTS, **changed}
    return DataColumns(metadata=metadata, keys=["a", "b", "ü"], label_N=np.array([2, 0, 1], np.int32))


def scored(model: str, data: str = "val", seed: int = 0) -> Scored:
    dice = np.random.default_rng(seed)
    predictions = Predictions(
        classes_NK=dice.integers(0, 9, (3, 5)).astype(np.int32), probabilities_NK=dice.random((3, 5)).astype(np.float32)
    )
    return Scored(row={"model": model, "data": data, "top1": 0.5}, predictions={"all": predictions})


def add(store: PredictionFile, data: DataColumns, *scored: Scored) -> None:
    store.write(ScoredData(data=data, scored=scored))


def same(found: Scored, expected: Scored) -> bool:
    pairs = [(found.predictions[space], expected.predictions[space]) for space in expected.predictions]
    equal = all(
        np.array_equal(a.classes_NK, b.classes_NK) and np.array_equal(a.probabilities_NK, b.probabilities_NK)
        for a, b in pairs
    )
    return equal and found.row == expected.row and found.predictions.keys() == expected.predictions.keys()


@pytest.fixture
def store(tmp_path: Path) -> PredictionFile:
    return PredictionFile(tmp_path / "predictions.h5")


def test_an_absent_file_is_empty(store: PredictionFile) -> None:
    assert (store.rows(), store.quality("val"), store.quality_identity("val")) == ([], {}, {})
    assert not store.path.exists()


@pytest.mark.parametrize("model", ["resnet50", "resnet50=/a/b.pth", "timm:x.y_z", "100% ü/."])
def test_what_goes_in_comes_out(store: PredictionFile, model: str) -> None:
    add(store, columns(), scored(model))
    add(store, columns("other"), scored(model, "other", seed=1))
    add(store, columns(), scored("second", seed=2))
    assert store.data("other").metadata == columns("other").metadata
    assert {key_of(row) for row in store.rows()} == {("val", model), ("val", "second"), ("other", model)}
    assert same(store.scored("val", model), scored(model))
    assert same(store.scored("other", model), scored(model, "other", seed=1))
    data = store.data("val")
    assert (data.keys, data.label_N.tolist(), data.metadata) == (["a", "b", "ü"], [2, 0, 1], columns().metadata)


def test_plain_h5py_reads_it(store: PredictionFile) -> None:
    add(store, columns(), scored("m"))
    with h5py.File(store.path) as file:
        assert file["data/val/key"][2].decode() == "ü"
        assert file["scores/val/m/all/classes"].shape == (3, 5)
        assert json.loads(file["scores/val/m"].attrs["facts"])["top1"] == 0.5


def test_a_pair_is_replaced(store: PredictionFile) -> None:
    add(store, columns(), scored("m"), scored("n"))
    add(store, columns(), scored("m", seed=9))
    assert same(store.scored("val", "m"), scored("m", seed=9))
    assert same(store.scored("val", "n"), scored("n"))


def test_other_samples_under_the_same_name_drop_what_was_known_of_the_first(store: PredictionFile) -> None:
    add(store, columns(), scored("m"), scored("n"))
    store.add_quality("val", {"psnr": np.ones(3)}, {"of": 1})
    add(store, columns(data_fingerprint="2"), scored("m", seed=9))
    assert [key_of(row) for row in store.rows()] == [("val", "m")]
    assert store.quality("val") == {}


def test_quality_comes_back(store: PredictionFile) -> None:
    store.add_quality("val", {"psnr": np.array([1.5, 2.5])}, {"of": "x"})
    assert store.quality("val")["psnr"].tolist() == [1.5, 2.5]
    assert store.quality_identity("val") == {"of": "x"}
    assert store.quality_identity("other") == {}


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all", None])
def test_damaged_and_foreign_files_are_refused(store: PredictionFile, content: bytes | None) -> None:
    if content is None:
        with h5py.File(store.path, "w") as file:
            file["x"] = 1
    else:
        store.path.write_bytes(content)
    before = store.path.read_bytes()
    for use in (store.rows, lambda: add(store, columns(), scored("m"))):
        with pytest.raises(UserError, match=r"predictions\.h5"):
            use()
    assert store.path.read_bytes() == before


def test_a_newer_file_is_refused(store: PredictionFile) -> None:
    add(store, columns(), scored("m"))
    with h5py.File(store.path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(UserError, match="newer advbn-gen"):
        store.rows()


def test_a_full_disk_leaves_the_old_file(disk: Path) -> None:
    store = PredictionFile(disk / "predictions.h5")
    add(store, columns(), scored("m"))
    resize(disk, 40)
    with pytest.raises(OSError, match="No space left"):
        store.add_quality("val", {"noise": np.random.default_rng(0).random(20_000)}, {})
    assert same(store.scored("val", "m"), scored("m"))
    assert [path.name for path in disk.iterdir()] == ["predictions.h5"]
