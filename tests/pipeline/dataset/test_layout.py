"""When a shard counts as done."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.layout import ShardMark, is_done, ledger_part_path, mark_path, read_mark, shard_name
from tests.pipeline.world import tar_of


@pytest.fixture
def mark(copied: Path) -> ShardMark:
    found = read_mark(copied, 3)
    assert found is not None
    return found


def test_names_are_those_of_the_specification() -> None:
    assert shard_name("imagenet-advbn-vgg", "val", 31) == "imagenet-advbn-vgg-val-000031.tar"
    assert mark_path(Path("x"), 7) == Path("x/stats/000007.json")


def test_the_mark_records_the_files(copied: Path, mark: ShardMark) -> None:
    tar = tar_of(copied, 3).read_bytes()
    assert mark.sha256 == hashlib.sha256(tar).hexdigest()
    assert mark.md5 == hashlib.md5(tar).hexdigest()
    assert mark.bytes == len(tar)
    assert (mark.shard, mark.samples, mark.batches, mark.file) == (3, 4, 1, tar_of(copied, 3).name)
    assert mark.ledger_sha256 == hashlib.sha256(ledger_part_path(copied, 3).read_bytes()).hexdigest()


def test_a_mark_comes_back_as_written(tmp_path: Path, mark: ShardMark) -> None:
    (tmp_path / "stats").mkdir()
    changed = replace(mark, shard=5, clean_right=2)
    changed.write(mark_path(tmp_path, 5))
    assert read_mark(tmp_path, 5) == changed
    assert "time" not in json.loads(mark_path(tmp_path, 5).read_text())


def test_a_finished_shard_is_done_for_its_own_run_only(copied: Path, mark: ShardMark) -> None:
    assert is_done(copied, 3, mark.fingerprint)
    assert not is_done(copied, 3, "0" * 64)
    assert not is_done(copied, 12, mark.fingerprint)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a flipped byte in the tar": lambda folder: flip(tar_of(folder, 3)),
    "a missing tar": lambda folder: tar_of(folder, 3).unlink(),
    "another shard's tar": lambda folder: shutil.copyfile(tar_of(folder, 4), tar_of(folder, 3)),
    "a flipped byte in the ledger part": lambda folder: flip(ledger_part_path(folder, 3)),
    "a missing ledger part": lambda folder: ledger_part_path(folder, 3).unlink(),
    "a missing mark": lambda folder: mark_path(folder, 3).unlink(),
    "an empty mark": lambda folder: mark_path(folder, 3).write_bytes(b""),
    "half a mark": lambda folder: mark_path(folder, 3).write_bytes(mark_path(folder, 3).read_bytes()[:60]),
    "a foreign mark": lambda folder: mark_path(folder, 3).write_text("{}"),
    "no object as a mark": lambda folder: mark_path(folder, 3).write_text("[1]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damage_makes_it_undone(copied: Path, mark: ShardMark, damage: str) -> None:
    DAMAGES[damage](copied)
    assert not is_done(copied, 3, mark.fingerprint)
