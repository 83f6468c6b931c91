"""The ledger by plain h5py."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from basics.errors import UserError, WorkError
from pipeline.dataset.ledger import (
    BatchRow,
    Columns,
    LedgerRows,
    join_columns,
    losses_in_nats,
    pixel_means,
    read_ledger,
    write_ledger,
)
from tests.pipeline.dataset.test_shard_file import METADATA

CHANNELS, STEPS = 5, 3


class Batch(NamedTuple):
    """A batch with drawn values."""

    image_N3HW: NDArray[np.uint8]
    losses_SN: NDArray[np.float64]
    row: BatchRow


def batch(size: int, seed: int) -> Batch:
    dice = np.random.default_rng(seed)
    image = dice.integers(0, 256, (size, 3, 2, 2), dtype=np.uint8)
    row = BatchRow(
        delta_mean_C=dice.random(CHANNELS), delta_std_C=dice.random(CHANNELS), pixel_mean_N=pixel_means(image)
    )
    return Batch(image, dice.random((STEPS + 1, size)), row)


def rows(sizes: list[int], seed: int = 0, key: str = "key") -> Columns:
    collected = LedgerRows()
    for number, size in enumerate(sizes):
        made = batch(size, seed + number)
        samples = [
            replace(
                METADATA, key=f"{key}-{number}-{i}", label=i, source_sha256=f"{seed + i:064x}", clean_prediction=i + 1,
                losses=[round(loss, 6) for loss in made.losses_SN[:, i].tolist()],
            )
            for i in range(size)
        ]  # fmt: skip
        collected.add(made.row, samples)
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
            assert np.array_equal(file["delta_mean"][row], expected.row.delta_mean_C)
            assert np.array_equal(file["delta_std"][row], expected.row.delta_std_C)
            np.testing.assert_allclose(file["loss"][row], expected.losses_SN.mean(1), atol=1e-6)
        assert file["batch_size"][()].tolist() == [4, 2]
        assert file["samples/key"][5] == b"key-1-1"
        assert file["samples/label"][()].tolist() == [0, 1, 2, 3, 0, 1]
        assert bytes(file["samples/source_sha256"][2]).hex() == f"{9:064x}"
        means = [image.mean() for expected in batches for image in expected.image_N3HW]
        np.testing.assert_allclose(file["samples/pixel_mean"], means, rtol=1e-7)


def all_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def test_every_column_is_described_to_plain_h5py(tmp_path: Path) -> None:
    write_ledger(tmp_path / "x.h5", rows([4, 2]), {})
    with h5py.File(tmp_path / "x.h5") as file:
        columns = [name for name in all_names(file) if hasattr(file[name], "dtype")]
        attributes_of = {name: dict(file[name].attrs) for name in columns}
        sizes = {name: file[name].shape for name in columns}
    assert len(attributes_of) == 13
    for name, attributes in attributes_of.items():
        assert set(attributes) == {"description", "unit"}
        assert len(attributes["description"]) > 15
        axes = attributes["description"].rpartition(": (")[2].rstrip(")").split(", ")
        assert len(axes) == len(sizes[name]), name
    assert attributes_of["samples/losses"]["unit"] == "millionths of a nat"
    assert "standard deviation" in attributes_of["delta_std"]["description"]


@pytest.mark.parametrize("loss", [0.0, 0.000001, 0.1, 1 / 3, 7.475806, 2.302585, 19.999999, 87.336545, 1e5 / 7, 8e9])
def test_a_loss_comes_back_as_in_the_json(tmp_path: Path, loss: float) -> None:
    rounded = round(loss, 6)
    collected = LedgerRows()
    collected.add(batch(1, 0).row, [replace(METADATA, losses=[rounded, rounded])])
    write_ledger(tmp_path / "x.h5", collected.columns(), {})
    back = losses_in_nats(read_ledger(tmp_path / "x.h5").columns).tolist()
    assert json.dumps(back) == json.dumps([[rounded, rounded]])


def test_ten_thousand_drawn_losses_come_back_as_in_the_json() -> None:
    drawn = np.random.default_rng(0).gamma(2, 3, 10_000)
    rounded = [round(float(loss), 6) for loss in drawn]
    collected = LedgerRows()
    collected.add(batch(1, 0).row, [replace(METADATA, losses=rounded)])
    assert losses_in_nats(collected.columns())[0].tolist() == rounded


def test_a_loss_beyond_all_measure_is_refused() -> None:
    with pytest.raises(WorkError, match="1e\\+12"):
        LedgerRows().add(batch(1, 0).row, [replace(METADATA, losses=[1.0, 1e12])])


def realistic(images: int, channels: int, size: int = 32, seed: int = 0) -> Columns:
    """A ledger as a run over ImageNet leaves it, without the run: as hard to compress, and as large."""
    dice = np.random.default_rng(seed)
    batches = -(-images // size)
    label = np.repeat(np.arange(1000), -(-images // 1000))[:images].astype(np.int32)
    number = dice.permutation(images) + 1
    wnids = np.sort(dice.choice(10**7, 1000, replace=False)) + 10**6
    predictions = {
        f"samples/{name}_prediction": np.where(dice.random(images) < accuracy, label, dice.integers(0, 1000, images))
        for name, accuracy in (("clean", 0.72), ("reconstructed", 0.5), ("adversarial", 0.02))
    }
    losses = np.rint(dice.gamma(2, 2.5, (images, 7)) * 1e6).astype(np.int64)
    columns: Columns = {
        "delta_mean": walk(dice, batches, channels),
        "delta_std": walk(dice, batches, channels),
        "loss": dice.gamma(2, 2.5, (batches, 7)),
        "batch_size": np.minimum(size, images - size * np.arange(batches)).astype(np.int32),
        "samples/key": np.array([f"ILSVRC2012_val_{n:08d}".encode() for n in number]),
        "samples/source": np.array(
            [f"n{wnids[k]:08d}/ILSVRC2012_val_{n:08d}.JPEG".encode() for k, n in zip(label, number, strict=True)]
        ),
        "samples/source_sha256": dice.integers(0, 256, (images, 32), dtype=np.uint8),
        "samples/label": label,
        "samples/losses": losses,
        "samples/pixel_mean": dice.normal(118, 40, images).astype(np.float32),
    }
    return columns | {name: prediction.astype(np.int32) for name, prediction in predictions.items()}


def walk(dice: np.random.Generator, batches: int, channels: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Six steps of 0.2; a sign turns in a fifth of them, which of 0, 0.1 ... 0.5 is the hardest to compress."""
    delta, sign = np.ones((batches, channels)), dice.choice([-1.0, 1.0], (batches, channels))
    for _ in range(6):
        turned = np.where(dice.random(delta.shape) < 0.2, -sign, sign)
        delta = np.clip(delta + 0.2 * turned, 1 - 1.1, 1 + 1.1)
    return delta


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "most"), [(512, 8.2e6), (256, 6.0e6)])
def test_the_ledger_of_imagenet_is_below_ten_megabytes(tmp_path: Path, channels: int, most: float) -> None:
    columns = realistic(50_000, channels)
    assert columns.keys() == rows([1]).keys()
    write_ledger(tmp_path / "x.h5", columns, {"name": "imagenet-advbn-vgg"})
    size = (tmp_path / "x.h5").stat().st_size
    assert size > 3e6, "so small that something is missing"
    assert size < most < 10e6
    assert np.array_equal(read_ledger(tmp_path / "x.h5").columns["delta_std"], columns["delta_std"])


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
    with pytest.raises(UserError, match=r"x\.h5 is damaged"):
        read_ledger(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(UserError, match="not a perturbation ledger"):
        read_ledger(tmp_path / "x.h5")


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    write_ledger(tmp_path / "x.h5", rows([1]), {})
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.attrs["version"] = 3
        file.attrs["name"] = "written in another way"
        del file["loss"]
    with pytest.raises(UserError, match="version 3 of a newer advbn-gen, and this one knows up to 2"):
        read_ledger(tmp_path / "x.h5")


def changed(columns: Columns, name: str, value: object) -> Columns:
    column = columns[name].copy()
    column[0] = value
    return columns | {name: column}


WRONG: dict[str, Callable[[Columns], Columns]] = {
    "it has no delta_std": lambda all_: {name: column for name, column in all_.items() if name != "delta_std"},
    r"delta_std is not \(batches, channels\)": lambda all_: all_ | {"delta_std": all_["delta_std"][:, :1]},
    r"delta_mean is not \(batches, channels\)": lambda all_: all_ | {"delta_mean": all_["delta_mean"][0]},
    r"samples/losses is not \(samples, steps \+ 1\)": lambda all_: all_ | {"loss": all_["loss"][:, 1:]},
    r"samples/label is not \(samples\)": lambda all_: all_ | {"samples/label": all_["samples/label"][:-1]},
    r"samples/source_sha256 is not \(samples, 32\)": lambda all_: all_ | {
        "samples/source_sha256": all_["samples/source_sha256"][:, :31]
    },
    "delta_mean holds other": lambda all_: changed(all_, "delta_mean", np.nan),
    "loss holds other": lambda all_: changed(all_, "loss", np.inf),
    "samples/source holds other": lambda all_: changed(all_, "samples/source", b"\xff"),
    "samples/label holds other": lambda all_: all_ | {"samples/label": all_["samples/label"].astype("S9")},
    "its batches are not its samples": lambda all_: changed(all_, "batch_size", 5),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_columns_that_do_not_fit_together_are_refused(tmp_path: Path, fault: str) -> None:
    write_ledger(tmp_path / "x.h5", WRONG[fault](rows([4, 2])), {})
    with pytest.raises(UserError, match=f"is damaged \\({fault}.*; fetch it again"):
        read_ledger(tmp_path / "x.h5")


@pytest.mark.parametrize(("name", "text"), [("version", "two"), ("identity", "{"), ("identity", "[]")])
def test_attributes_that_cannot_be_read_are_refused(tmp_path: Path, name: str, text: str) -> None:
    write_ledger(tmp_path / "x.h5", rows([1]), {})
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.attrs[name] = text
    with pytest.raises(UserError, match="is damaged"):
        read_ledger(tmp_path / "x.h5")


@pytest.mark.slow
def test_damage_in_any_place_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_ledger(path, rows([4, 2]), {"name": "n"})
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 41):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            read_ledger(path)
        except UserError:
            refused += 1
    assert refused > 3
