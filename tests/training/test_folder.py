"""Whose a run folder is."""

from pathlib import Path
from typing import Any

import pytest

from basics.errors import UserError
from training.folder import claim_folder, drop_metrics_after, forget_run, is_first_process

TRAINING = {"lr": 0.1, "loaders": 0, "checkpoint_every": 500, "epochs": 4, "schedule": "constant"}


def settings(source: str = "/a", **training: Any) -> dict[str, Any]:
    return {"training": {**TRAINING, **training}, "source": source, "records_sha256": "1", "nested": {"a": 1}}


@pytest.mark.parametrize(
    "now",
    [settings(), settings("/moved"), settings(loaders=8, checkpoint_every=9), settings(epochs=6), settings(epochs=3)],
)
def test_what_changes_no_weight_may_change(tmp_path: Path, now: dict[str, Any]) -> None:
    claim_folder(tmp_path, settings())
    claim_folder(tmp_path, now)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (settings(lr=0.2), r"training\.lr: 0\.1 -> 0\.2"),
        (settings() | {"records_sha256": "2"}, "records_sha256"),
        (settings() | {"nested": {"a": 2}}, r"nested\.a: 1 -> 2"),
        (settings(schedule="cosine"), r"training\.schedule"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, now: dict[str, Any], message: str) -> None:
    claim_folder(tmp_path, settings())
    with pytest.raises(UserError, match=message):
        claim_folder(tmp_path, now)


def test_a_cosine_ends_where_it_was_planned_to_end(tmp_path: Path) -> None:
    claim_folder(tmp_path, settings(schedule="cosine"))
    with pytest.raises(UserError, match=r"training\.epochs: 4 -> 5"):
        claim_folder(tmp_path, settings(schedule="cosine", epochs=5))


def test_equal_settings_are_not_written_again(tmp_path: Path) -> None:
    """Several processes may come by at the same time."""
    claim_folder(tmp_path, settings())
    tmp_path.joinpath("settings.json.tmp").mkdir()  # whoever writes now fails
    claim_folder(tmp_path, settings())
    with pytest.raises(OSError, match="settings"):
        claim_folder(tmp_path, settings(loaders=3))


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(UserError, match=r"settings\.json is damaged"):
        claim_folder(tmp_path, settings())


def test_only_the_runs_own_files_are_forgotten(tmp_path: Path) -> None:
    claim_folder(tmp_path, settings())
    (tmp_path / "own.txt").write_text("mine")
    forget_run(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["own.txt"]
    claim_folder(tmp_path, settings(lr=7))


def test_a_cut_line_and_later_ones_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    steps = [f'{{"epoch": {step}, "step": {step}, "loss": 1.0}}\n' for step in (1, 2, 3)]
    ends = [f'{{"epoch": {step}, "step": {step}, "held": 1.0}}\n' for step in (1, 2, 3)]
    path.write_text(steps[0] + ends[0] + steps[1] + ends[1] + steps[2] + '{"st')
    drop_metrics_after(path, 2, 1)
    # The second epoch's end is made again.
    assert path.read_text() == steps[0] + ends[0] + steps[1]


def test_alone_a_process_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert is_first_process(1)
    assert not is_first_process(2)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert is_first_process(2)
