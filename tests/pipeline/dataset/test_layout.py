"""When a shard counts as done."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.layout import ShardStats, is_done, ledger_part_path, read_stats, shard_name, stats_path
from tests.pipeline.world import tar_of


@pytest.fixture
def stats(copied: Path) -> ShardStats:
    found = read_stats(copied, 3)
    assert found is not None
    return found


def test_names_are_those_of_the_specification() -> None:
    assert shard_name("imagenet-advbn-vgg", "val", 31) == "imagenet-advbn-vgg-val-000031.tar"
    assert stats_path(Path("x"), 7) == Path("x/stats/000007.json")


def test_the_mark_tells_the_files_own_facts(copied: Path, stats: ShardStats) -> None:
    tar = tar_of(copied, 3).read_bytes()
    assert stats.sha256 == hashlib.sha256(tar).hexdigest()
    assert stats.md5 == hashlib.md5(tar).hexdigest()
    assert stats.bytes == len(tar)
    assert (stats.shard, stats.samples, stats.batches, stats.file) == (3, 4, 1, tar_of(copied, 3).name)
    assert stats.ledger_sha256 == hashlib.sha256(ledger_part_path(copied, 3).read_bytes()).hexdigest()


def test_a_mark_comes_back_as_written(tmp_path: Path, stats: ShardStats) -> None:
    (tmp_path / "stats").mkdir()
    changed = replace(stats, shard=5, clean_right=2)
    changed.write(stats_path(tmp_path, 5))
    assert read_stats(tmp_path, 5) == changed
    assert "time" not in json.loads(stats_path(tmp_path, 5).read_text())


def test_a_finished_shard_is_done_for_its_own_run_only(copied: Path, stats: ShardStats) -> None:
    assert is_done(copied, 3, stats.fingerprint)
    assert not is_done(copied, 3, "0" * 64)
    assert not is_done(copied, 12, stats.fingerprint)


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
    "a missing mark": lambda folder: stats_path(folder, 3).unlink(),
    "an empty mark": lambda folder: stats_path(folder, 3).write_bytes(b""),
    "half a mark": lambda folder: stats_path(folder, 3).write_bytes(stats_path(folder, 3).read_bytes()[:60]),
    "a foreign mark": lambda folder: stats_path(folder, 3).write_text("{}"),
    "no object as a mark": lambda folder: stats_path(folder, 3).write_text("[1]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damage_makes_it_undone(copied: Path, stats: ShardStats, damage: str) -> None:
    DAMAGES[damage](copied)
    assert not is_done(copied, 3, stats.fingerprint)
