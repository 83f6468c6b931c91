"""The ledger by plain h5py."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from basics.errors import UserError
from pipeline.ledger import Columns, LedgerRows, join_columns, read_ledger, write_ledger
from pipeline.perturb import PerturbedBatch
from tests.pipeline.test_shardfile import FACTS

CHANNELS, STEPS = 5, 3


def batch(size: int, seed: int) -> PerturbedBatch:
    dice = torch.Generator().manual_seed(seed)
    image = torch.zeros(size, 3, 2, 2, dtype=torch.uint8)
    return PerturbedBatch(
        perturbed_N3HW=image, reconstructed_N3HW=image,
        delta_mean_C=torch.rand(CHANNELS, generator=dice, dtype=torch.float64),
        delta_std_C=torch.rand(CHANNELS, generator=dice, dtype=torch.float64),
        losses_SN=torch.rand(STEPS + 1, size, generator=dice, dtype=torch.float64),
        clean_N=torch.arange(size), reconstructed_N=torch.arange(size), adversarial_N=torch.arange(size),
    )  # fmt: skip


def rows(sizes: list[int], seed: int = 0, key: str = "key") -> Columns:
    collected = LedgerRows()
    for number, size in enumerate(sizes):
        samples = [
            replace(FACTS, key=f"{key}-{number}-{i}", label=i, source_sha256=f"{seed + i:064x}", clean_prediction=i + 1)
            for i in range(size)
        ]
        collected.add(batch(size, seed + number), samples)
    return collected.columns()


def test_a_ledger_comes_back_as_it_was_written(tmp_path: Path) -> None:
    columns = rows([4, 2])
    write_ledger(tmp_path / "x.h5", columns, {"name": "drawn", "nested": {"a": [1, 2]}})
    ledger = read_ledger(tmp_path / "x.h5")
    assert ledger.attributes == {"name": "drawn", "nested": {"a": [1, 2]}}
    assert (ledger.batches, len(ledger.keys)) == (2, 6)
    assert ledger.columns.keys() == columns.keys()
    for name, column in columns.items():
        assert ledger.columns[name].dtype == column.dtype
        assert np.array_equal(ledger.columns[name], column)


def test_plain_h5py_reads_what_was_done_to_each_batch(tmp_path: Path) -> None:
    write_ledger(tmp_path / "x.h5", rows([4, 2], seed=7), {"name": "drawn"})
    batches = [batch(4, 7), batch(2, 8)]
    with h5py.File(tmp_path / "x.h5") as file:
        assert file.attrs["format"] == "advbn-gen perturbation ledger"
        assert json.loads(file.attrs["name"]) == "drawn"
        for row, expected in enumerate(batches):
            assert np.array_equal(file["delta_mean"][row], expected.delta_mean_C.numpy())
            assert np.array_equal(file["delta_std"][row], expected.delta_std_C.numpy())
            np.testing.assert_allclose(file["loss"][row], expected.losses_SN.mean(1).numpy(), rtol=1e-12)
        assert file["batch_size"][()].tolist() == [4, 2]
        assert file["samples/key"][5] == b"key-1-1"
        assert file["samples/label"][()].tolist() == [0, 1, 2, 3, 0, 1]
        assert bytes(file["samples/source_sha256"][2]).hex() == f"{9:064x}"


def test_equal_content_gives_equal_bytes_whatever_was_written_before(tmp_path: Path) -> None:
    columns = rows([3, 3, 1])
    write_ledger(tmp_path / "first.h5", columns, {"name": "n"})
    write_ledger(tmp_path / "other.h5", rows([50] * 40, seed=3), {"name": "something longer"})
    with h5py.File(tmp_path / "foreign.h5", "w", track_order=True) as file:
        file.create_dataset("x", data=np.zeros((2000, 30)), compression="gzip")
    shuffled = dict(reversed(list(columns.items())))
    write_ledger(tmp_path / "again.h5", shuffled, {"name": "n"})
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "first.h5").read_bytes()


def test_a_large_ledger_is_the_same_twice(tmp_path: Path) -> None:
    columns = rows([32] * 120)
    for name in ("a.h5", "b.h5"):
        write_ledger(tmp_path / name, columns, {})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_joined_parts_are_the_ledger_of_the_whole(tmp_path: Path) -> None:
    parts = [rows([4, 4], key="k"), rows([3], seed=9, key="a-longer-key")]
    joined = join_columns(parts)
    write_ledger(tmp_path / "whole.h5", joined, {})
    ledger = read_ledger(tmp_path / "whole.h5")
    assert ledger.keys[0] == "k-0-0"
    assert ledger.keys[-1] == "a-longer-key-0-2"
    assert ledger.batches == 3
    assert np.array_equal(ledger.columns["delta_mean"][2], parts[1]["delta_mean"][0])


def test_a_missing_ledger_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.h5 is missing"):
        read_ledger(tmp_path / "none.h5")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_ledger_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.h5"
    write_ledger(path, rows([4, 2]), {"name": "n"})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"x\.h5 is missing or damaged"):
        read_ledger(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(UserError, match="not a perturbation ledger"):
        read_ledger(tmp_path / "x.h5")


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    write_ledger(tmp_path / "x.h5", rows([1]), {})
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.attrs["version"] = 2
    with pytest.raises(UserError, match="newer"):
        read_ledger(tmp_path / "x.h5")


def test_damage_in_any_place_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_ledger(path, rows([4, 2]), {"name": "n"})
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 41):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_ledger(path)
        except UserError:
            refused += 1
    assert refused > 3
