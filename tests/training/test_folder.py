"""Whose a run folder is."""

import json
import locale
from pathlib import Path
from typing import Any

import pytest

from basics.errors import UserError
from tests.processes import in_a_process
from training.folder import claim_folder, drop_metrics_after, is_first_process, lock_run_folder, remove_run

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


def marks(*values: int) -> dict[str, Any]:
    return settings() | {"content": {"training": [f"{value}:{value}" for value in values], "held-out": ["0:0"]}}


BEGUN = marks(1, 2, 3, 4)


def begun(out: Path, before: dict[str, Any]) -> None:
    claim_folder(out, before)
    (out / "checkpoint.pt").touch()


@pytest.mark.parametrize("now", [marks(5, 6, 7, 8), marks(1, 2, 7, 8), marks(1, 2, 3), marks(2, 3, 4, 1)])
def test_a_run_on_other_images_is_refused(tmp_path: Path, now: dict[str, Any]) -> None:
    begun(tmp_path, BEGUN)
    before = (tmp_path / "settings.json").read_bytes()
    with pytest.raises(UserError, match=r"holds a run on other training images.*Start anew with --overwrite"):
        claim_folder(tmp_path, now)
    assert (tmp_path / "settings.json").read_bytes() == before
    # The mend that is named: without the entry, the run goes on.
    kept = {name: value for name, value in json.loads(before).items() if name != "content"}
    (tmp_path / "settings.json").write_text(json.dumps(kept))
    claim_folder(tmp_path, now)
    with pytest.raises(UserError, match="other training images"):
        claim_folder(tmp_path, BEGUN)


def test_other_held_out_images_are_refused(tmp_path: Path) -> None:
    begun(tmp_path, BEGUN)
    with pytest.raises(UserError, match="holds a run on other held-out images"):
        claim_folder(tmp_path, BEGUN | {"content": {**BEGUN["content"], "held-out": ["9:9"]}})


def test_a_few_images_may_be_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tmp_path, BEGUN)
    claim_folder(tmp_path, marks(1, 2, 3, 9))
    assert "A few training images have changed since the run" in capsys.readouterr().err
    # Not all of them, a few at a time: they are compared with those of the beginning.
    with pytest.raises(UserError, match="other training images"):
        claim_folder(tmp_path, marks(1, 2, 8, 9))


def test_images_may_change_before_the_first_checkpoint(tmp_path: Path) -> None:
    claim_folder(tmp_path, BEGUN)
    claim_folder(tmp_path, marks(5, 6, 7, 8))


def test_a_run_of_an_earlier_version_goes_on_with_one_notice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tmp_path, settings())
    claim_folder(tmp_path, BEGUN)
    assert "has no checksum of the files that it began with" in capsys.readouterr().err
    claim_folder(tmp_path, BEGUN)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("before", "now"), [(settings(), []), (BEGUN, []), (settings() | {"content": {}}, ["1:1"])])
def test_images_without_files_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: dict[str, Any], now: list[str]
) -> None:
    begun(tmp_path, before)
    claim_folder(tmp_path, settings() | {"content": {"training": now}})
    assert capsys.readouterr().err == ""


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match=r"settings\.json is damaged; restore it, or start anew with --overwrite"):
        claim_folder(tmp_path, settings())
    with lock_run_folder(tmp_path, settings(), [], devices=1, overwrite=True):
        assert json.loads((tmp_path / "settings.json").read_text()) == settings()


@pytest.mark.parametrize("overwrite", [False, True])
def test_settings_of_another_program_are_never_overwritten(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "settings.json").write_text('{"editor": 1}')
    with (
        pytest.raises(UserError, match=r"holds a settings\.json that is not of a training; give another --out"),
        lock_run_folder(tmp_path, settings(), [], devices=1, overwrite=overwrite),
    ):
        pytest.fail("taken")
    assert (tmp_path / "settings.json").read_text() == '{"editor": 1}'


def test_settings_that_cannot_be_read_are_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "settings.json").mkdir()
    with pytest.raises(UserError, match=r"settings\.json cannot be read \(Is a directory\); check the path"):
        claim_folder(tmp_path, settings())


@pytest.mark.slow
def test_a_run_goes_on_whatever_the_locale(tmp_path: Path) -> None:
    claim_folder(tmp_path, {**settings(), "weights": "Straße/写"})
    assert in_a_process(claimed_in_ascii, tmp_path) == "ANSI_X3.4-1968"


def claimed_in_ascii(folder: Path) -> str:
    locale.setlocale(locale.LC_ALL, "C")
    claim_folder(folder, {**settings(), "weights": "Straße/写"})
    return locale.getencoding()


def test_only_the_runs_own_files_are_forgotten(tmp_path: Path) -> None:
    claim_folder(tmp_path, settings())
    (tmp_path / "own.txt").write_text("mine")
    remove_run(tmp_path, [])
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
