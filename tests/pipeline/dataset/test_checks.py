"""Finding damage without repairing it; `tests/pipeline/test_repair.py` has every kind of damage."""

from pathlib import Path

import pytest

from tests.pipeline.damage import SHARD, edit, flip, forge
from tests.pipeline.world import BATCH, members, tar_of
from tests.support import advbn_gen, dice_of, folder_bytes, refused


@pytest.mark.slow
def test_a_whole_data_set_is_all_right(finished: Path) -> None:
    before = folder_bytes(finished)
    outcome = advbn_gen("verify", finished, "--json")
    assert outcome.code == 0
    assert outcome.result == {"ok": True, "problems": [], "repaired": []}
    assert "all right" in advbn_gen("verify", finished).out
    assert folder_bytes(finished) == before


def test_without_repair_nothing_is_written(copied: Path) -> None:
    flip(tar_of(copied, SHARD), 0.5)
    before = folder_bytes(copied)
    outcome = advbn_gen("verify", copied)
    assert outcome.code == 1
    assert "--repair" in outcome.err
    assert folder_bytes(copied) == before


@pytest.mark.slow
def test_any_flipped_bit_in_a_mark_or_in_the_manifest_is_found(copied: Path) -> None:
    dice = dice_of(0)
    for name in ("stats/000003.json", "manifest.json"):
        path = copied / name
        whole = path.read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(7)
            path.write_bytes(content)
            found = advbn_gen("verify", copied)
            assert found.code in {1, 2}, content
            assert "Traceback" not in found.err
        path.write_bytes(whole)
    assert advbn_gen("verify", copied).code == 0


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    assert "has no manifest.json" in refused("verify", tmp_path)
    assert "has no manifest.json" in refused("verify", tmp_path / "absent")


def test_every_sample_is_checked(copied: Path) -> None:
    """A forged tar with every label wrong is reported sample by sample."""
    edit(copied, lambda content: {k: (b"999" if k.endswith(".cls") else v) for k, v in content.items()})
    forge(copied)
    problems = advbn_gen("verify", copied, "--json").result["problems"]
    keys = {name.split(".")[0] for name in members(tar_of(copied, SHARD))}
    assert len(keys) == BATCH
    assert all(any(key in text for text in problems) for key in keys)
