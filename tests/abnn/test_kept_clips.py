"""Clips that are kept for a report: what is written is what is read, of just the result that was asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from abnn.kept_clips import CLIPS_FOLDER, KeptClip, kept_positions, read_clips, some_frames, write_clips
from basics.errors import UserError

ROW: dict[str, Any] = {"model": "m", "attack": "pgd-5", "pair": "p", "data_content": "c"}


def clip(seed: int = 0) -> KeptClip:
    draw = np.random.default_rng(seed)
    clean, attacked = draw.integers(0, 256, (2, 3, 4, 5, 5), dtype=np.uint8)
    return KeptClip(
        clean_3THW=clean, attacked_3THW=attacked, label="hop", clean_prediction="hop", prediction="Füße/ßkip"
    )


def test_kept_clips_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = {3: clip(0), 10: clip(1)}
    write_clips(tmp_path, ROW, written)
    found = read_clips(tmp_path, ROW)
    assert set(found) == {3, 10}
    for position, each in found.items():
        assert np.array_equal(each.clean_3THW, written[position].clean_3THW)
        assert np.array_equal(each.attacked_3THW, written[position].attacked_3THW)
        assert (each.label, each.clean_prediction, each.prediction) == ("hop", "hop", "Füße/ßkip")


@pytest.mark.parametrize("changed", [{"pair": "q"}, {"model": "n"}, {"attack": "roa"}, {"data_content": "d"}])
def test_clips_of_another_result_are_not_read(tmp_path: Path, changed: dict[str, Any]) -> None:
    write_clips(tmp_path, ROW, {0: clip()})
    assert read_clips(tmp_path, {**ROW, **changed}) == {}


def test_a_result_of_the_same_names_replaces_the_clips(tmp_path: Path) -> None:
    write_clips(tmp_path, ROW, {0: clip(), 1: clip()})
    write_clips(tmp_path, {**ROW, "pair": "q"}, {2: clip()})
    assert len(list((tmp_path / CLIPS_FOLDER).iterdir())) == 1
    assert set(read_clips(tmp_path, {**ROW, "pair": "q"})) == {2}


def test_lines_without_a_mark_of_the_clips_are_enough(tmp_path: Path) -> None:
    write_clips(tmp_path, ROW, {0: clip()})
    assert set(read_clips(tmp_path, {name: ROW[name] for name in ROW if name != "data_content"})) == {0}


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    write_clips(tmp_path, ROW, {0: clip()})
    (path,) = (tmp_path / CLIPS_FOLDER).iterdir()
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=f"{path.name} is damaged .* remove it, which leaves its clips out"):
        read_clips(tmp_path, ROW)


def test_kept_clips_are_spread_over_all() -> None:
    assert kept_positions(0) == set()
    assert kept_positions(1) == {0}
    assert kept_positions(3) == {0, 1, 2}
    assert kept_positions(100) == {0, 25, 50, 75}


def test_few_frames_are_kept_at_equal_distances() -> None:
    numbers = torch.arange(40).view(1, 40, 1, 1).expand(3, 40, 2, 2)
    assert some_frames(numbers / 255)[0, :, 0, 0].tolist() == list(range(0, 40, 3))
    assert some_frames(numbers[:, :16] / 255)[0, :, 0, 0].tolist() == list(range(16))
    assert some_frames(torch.full((3, 1, 2, 2), 0.499))[0, 0, 0, 0] == 127
