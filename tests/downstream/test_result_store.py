"""The store of results by sample: what it reuses, goes on with, refuses and replaces, in each of its layouts."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from abnn.results import NOT_ATTACKED, SAME_TEST, AttackLayout, AttackResult
from basics.errors import UserError
from downstream.prediction_folder import PredictionFolder
from downstream.predictions import SAME_SAMPLES, DataColumns, PredictionFile, Predictions, Scored, ScoredData
from downstream.result_store import (
    CONTENT,
    PREDICTION_FOLDER,
    PREDICTIONS,
    RESULTS,
    SAMPLES,
    ComparisonKey,
    Layout,
    Results,
    Row,
    Wanted,
    opened_store,
)


def of_data(model: str, condition: str, *, seed: int = 0, weights: str = "a", data: str = "d") -> Wanted:
    """What a model on a data set wants; the seed stands for its transform."""
    return Wanted(
        identity={
            "model": model, "data": condition, "weights_sha256": weights, "data_fingerprint": data,
            "samples_sha256": data, "transform": f"crop {seed}",
        },
        more={"batch_norm": None},
    )  # fmt: skip


def of_attack(model: str, condition: str, *, seed: int = 0, weights: str = "a", data: str = "d") -> Wanted:
    """What a network under an attack wants."""
    return Wanted(
        identity={
            "model": model, "attack": condition, "weights_sha256": weights, "data_sha256": data, "n": 3,
            "settings": {"eps": 0.1, "seed": seed},
        },
        more={"data": "/images", "cost": None},
    )  # fmt: skip


def scored_data(wanted: Wanted, value: float) -> ScoredData:
    metadata = {name: wanted.identity[name] for name in ("data", "data_fingerprint", "samples_sha256")}
    predictions = Predictions(
        classes_NK=np.zeros((3, 1), np.int32), probabilities_NK=np.full((3, 1), value, np.float32)
    )
    return ScoredData(
        data=DataColumns(metadata=metadata, keys=["a", "b", "c"], label_N=np.zeros(3, np.int32)),
        scored=[Scored(row={**wanted.row, "n": 3, "top1": value}, predictions={"all": predictions})],
    )


def attacked(wanted: Wanted, value: float) -> AttackResult:
    correct_N = (np.arange(3) < round(3 * value)).astype(np.int8)
    return AttackResult(row={**wanted.row, "accuracy": value, "seconds": 1.0}, correct_N=correct_N)


@dataclass(frozen=True)
class Case:
    """A layout with what it takes."""

    layout: Callable[[Path], Layout[Any]]
    comparison: ComparisonKey
    wanted: Callable[..., Wanted]
    results: Callable[[Wanted, float], Results]
    value: str
    """Field of the rows that holds the value."""


CASES = {
    PREDICTIONS: Case(lambda out: PredictionFile(out / PREDICTIONS), SAME_SAMPLES, of_data, scored_data, "top1"),
    PREDICTION_FOLDER: Case(
        lambda out: PredictionFolder(out / PREDICTION_FOLDER), SAME_SAMPLES, of_data, scored_data, "top1"
    ),
    SAMPLES: Case(lambda out: AttackLayout(out / SAMPLES), SAME_TEST, of_attack, attacked, "accuracy"),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def computed(case: Case, out: Path, wanted: list[Wanted], value: float, *, overwrite: bool = False) -> list[str]:
    """Compute what is missing, with one value; return the conditions that were missing."""
    with opened_store(case.layout(out), case.comparison) as store:
        missing = store.missing(wanted, overwrite=overwrite)
        for each in missing:
            store.add(case.results(each, value))
        store.write_rows()
    return [each.key[0] for each in missing]


def lines(out: Path) -> list[Row]:
    return [json.loads(line) for line in (out / RESULTS).read_text().splitlines()]


def values(case: Case, out: Path) -> dict[tuple[str, str], float]:
    with opened_store(case.layout(out), case.comparison) as store:
        return {key: row[case.value] for key, row in store.rows.items()}


def test_only_what_is_missing_is_computed(case: Case, tmp_path: Path) -> None:
    assert computed(case, tmp_path, [case.wanted("m", "x")], 0.0) == ["x"]
    assert computed(case, tmp_path, [case.wanted("m", "x"), case.wanted("m", "y")], 1.0) == ["y"]
    assert values(case, tmp_path) == {("x", "m"): 0.0, ("y", "m"): 1.0}
    assert [row[case.value] for row in lines(tmp_path)] == [0.0, 1.0]


def test_another_result_of_the_same_names_is_refused_with_the_difference(case: Case, tmp_path: Path) -> None:
    computed(case, tmp_path, [case.wanted("m", "x")], 0.0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"another result of m (on|under) x \(.*: .*0 -> .*1\).*--overwrite to replace"):
        computed(case, tmp_path, [case.wanted("m", "x", seed=1)], 1.0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_another_checksum_is_refused_where_no_compared_field_differs(case: Case, tmp_path: Path) -> None:
    """A former version's identity may have had a field that this one does not compare."""
    wanted = case.wanted("m", "x")
    recorded = Wanted(identity={**wanted.identity, "resize": 256}, more=wanted.more)
    computed(case, tmp_path, [recorded], 0.0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"another result of m (on|under) x \(pair: .* -> .*\).*--overwrite to replace"):
        computed(case, tmp_path, [wanted], 1.0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert computed(case, tmp_path, [wanted], 1.0, overwrite=True) == ["x"]
    assert values(case, tmp_path) == {("x", "m"): 1.0}


THEN, NOW = "1:2", "3:4"


def marked(wanted: Wanted, mark: str) -> Wanted:
    return replace(wanted, more={**wanted.more, CONTENT: mark})


def test_results_of_images_that_have_changed_are_computed_again(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, other = case.wanted("m", "x"), case.wanted("n", "x")
    computed(case, tmp_path, [marked(wanted, THEN), marked(other, THEN)], 0.0)
    assert computed(case, tmp_path, [marked(wanted, THEN)], 1.0) == []
    assert "have other sizes or times" not in capsys.readouterr().err
    assert computed(case, tmp_path, [marked(wanted, NOW), marked(other, NOW)], 1.0) == ["x", "x"]
    assert set(values(case, tmp_path).values()) == {1.0}
    assert "other sizes or times than when 2 results in" in capsys.readouterr().err
    assert computed(case, tmp_path, [marked(wanted, NOW)], 0.0) == []
    assert all(CONTENT not in line for line in lines(tmp_path))


def test_results_of_other_images_neither_stand_beside_those_of_new_ones_nor_are_lost(
    case: Case, tmp_path: Path
) -> None:
    """Where another model or attack is wanted than the results that are there are of."""
    first, second = (
        (case.wanted("m", "x"), case.wanted("m", "y"))
        if case.comparison is SAME_TEST
        else (case.wanted("m", "x"), case.wanted("n", "x"))
    )
    computed(case, tmp_path, [marked(first, THEN)], 0.0)
    with pytest.raises(
        UserError, match=r"does not compute 1 again \(such as m, x\); give those with it, .* --overwrite"
    ):
        computed(case, tmp_path, [marked(second, NOW)], 1.0)
    assert values(case, tmp_path) == {first.key: 0.0}
    assert computed(case, tmp_path, [marked(second, NOW)], 1.0, overwrite=True) == [second.key[0]]
    assert values(case, tmp_path) == {second.key: 1.0}
    assert len(lines(tmp_path)) == 1


def test_results_without_a_mark_of_the_images_are_reused_with_a_notice(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [case.wanted("m", "x"), case.wanted("m", "y")]
    computed(case, tmp_path, both, 0.0)
    assert computed(case, tmp_path, [marked(each, NOW) for each in both], 1.0) == []
    assert capsys.readouterr().err.count("An earlier version wrote 2 results in") == 1
    # Images without files have no state checksum: then there is nothing to say.
    assert computed(case, tmp_path, both, 1.0) == []
    assert "earlier version" not in capsys.readouterr().err


def test_reused_results_are_counted_in_a_message(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    computed(case, tmp_path, [case.wanted("m", "x")], 0.0)
    assert capsys.readouterr().err == ""
    computed(case, tmp_path, [case.wanted("m", "x"), case.wanted("m", "y")], 1.0)
    if case.comparison is SAME_TEST:
        expected = "1 of 2 results are in the folder already; --overwrite computes them again.\n"
    else:
        expected = "1 of 2 pairs were scored before; --overwrite scores them again.\n"
    assert capsys.readouterr().err == expected


def test_overwriting_replaces_the_same_and_another_result(case: Case, tmp_path: Path) -> None:
    both = [case.wanted("m", "x"), case.wanted("m", "y")]
    computed(case, tmp_path, both, 0.0)
    assert computed(case, tmp_path, both[:1], 1.0, overwrite=True) == ["x"]
    assert values(case, tmp_path) == {("x", "m"): 1.0, ("y", "m"): 0.0}
    assert computed(case, tmp_path, [case.wanted("m", "y", seed=1)], 1.0, overwrite=True) == ["y"]
    assert values(case, tmp_path) == {("x", "m"): 1.0, ("y", "m"): 1.0}
    assert len(lines(tmp_path)) == 2


def test_results_on_other_samples_are_not_put_beside_each_other(case: Case, tmp_path: Path) -> None:
    first, other = case.wanted("m", "x"), case.wanted("n", "x", data="e")
    if case.comparison is SAME_TEST:
        # Of one network under another attack; what is not replaced stays a reason to refuse.
        other = case.wanted("m", "y", data="e")
    computed(case, tmp_path, [first], 0.0)
    with pytest.raises(UserError, match=r"holds results .*other .*_sha256: d -> e"):
        computed(case, tmp_path, [other], 1.0)
    if case.comparison is SAME_TEST:
        with pytest.raises(UserError, match=r"holds results .*_sha256: d -> e"):
            computed(case, tmp_path, [other], 1.0, overwrite=True)
        computed(case, tmp_path, [case.wanted("m", "x", data="e"), other], 1.0, overwrite=True)
        assert values(case, tmp_path) == {("x", "m"): 1.0, ("y", "m"): 1.0}
    else:
        computed(case, tmp_path, [other], 1.0, overwrite=True)
        assert values(case, tmp_path) == {("x", "n"): 1.0}


@pytest.mark.parametrize("name", [PREDICTIONS, PREDICTION_FOLDER])
def test_a_lost_results_file_is_written_again(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    computed(case, tmp_path, [case.wanted("m", "x"), case.wanted("n", "x")], 0.5)
    whole = (tmp_path / RESULTS).read_bytes()
    (tmp_path / RESULTS).unlink()
    assert computed(case, tmp_path, [case.wanted("m", "x")], 1.0) == []
    assert (tmp_path / RESULTS).read_bytes() == whole


def test_a_half_filled_result_has_samples_and_no_row(tmp_path: Path) -> None:
    wanted, layout = of_attack("m", "x"), AttackLayout(tmp_path / SAMPLES)
    with opened_store(layout, SAME_TEST) as store:
        store.add(AttackResult(row=wanted.row, correct_N=np.array([1, 0, NOT_ATTACKED], np.int8)))
        assert store.rows == {}
    again = AttackLayout(tmp_path / SAMPLES)
    with opened_store(again, SAME_TEST) as store:
        assert store.missing([wanted], overwrite=False) == [wanted]
        assert again.correct(wanted.row, 3).tolist() == [1, 0, NOT_ATTACKED]
        # Another number of images is another result, whatever its checksum.
        assert again.correct(wanted.row, 4).tolist() == [NOT_ATTACKED] * 4


def test_a_half_filled_result_removes_the_row_that_it_replaces(tmp_path: Path) -> None:
    wanted, layout = of_attack("m", "x"), AttackLayout(tmp_path / SAMPLES)
    with opened_store(layout, SAME_TEST) as store:
        store.add(attacked(wanted, 1.0))
        store.add(AttackResult(row=wanted.row, correct_N=np.array([0, 0, NOT_ATTACKED], np.int8)))
    assert lines(tmp_path) == []


def test_rows_go_before_samples_are_replaced(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies while it writes samples leaves no row that speaks of the earlier ones."""
    wanted = case.wanted("m", "x")
    computed(case, tmp_path, [wanted], 0.0)
    with opened_store(case.layout(tmp_path), case.comparison) as store:

        def dies(_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(store._layout, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            store.add(case.results(wanted, 1.0))
    assert lines(tmp_path) == []


def test_lines_may_have_summaries_that_are_not_read_back(tmp_path: Path) -> None:
    layout = PredictionFile(tmp_path / PREDICTIONS)
    with opened_store(layout, SAME_SAMPLES, lambda rows: [*rows, {"summary": True}]) as store:
        store.add(scored_data(of_data("m", "x"), 1.0))
    assert lines(tmp_path)[1] == {"summary": True}
    with opened_store(layout, SAME_SAMPLES) as store:
        assert list(store.rows) == [("x", "m")]


def test_one_folder_is_written_by_one_run(case: Case, tmp_path: Path) -> None:
    with (
        opened_store(case.layout(tmp_path), case.comparison),
        pytest.raises(UserError, match="Another run is writing"),
        opened_store(case.layout(tmp_path), case.comparison),
    ):
        pass


def test_the_folder_of_another_command_is_refused(case: Case, tmp_path: Path) -> None:
    computed(case, tmp_path, [case.wanted("m", "x")], 0.0)
    before = (tmp_path / RESULTS).read_bytes()
    for other in CASES.values():
        if other is not case:
            with pytest.raises(UserError, match="of another command"):
                computed(other, tmp_path, [other.wanted("m", "x")], 0.0)
    assert (tmp_path / RESULTS).read_bytes() == before


@pytest.mark.parametrize("damage", ["no JSON", '{"model": "m"}', "[]"])
def test_damaged_lines_of_attacks_are_refused_and_kept(tmp_path: Path, damage: str) -> None:
    computed(CASES[SAMPLES], tmp_path, [of_attack("m", "x")], 0.0)
    (tmp_path / RESULTS).write_text(damage)
    with pytest.raises(UserError, match=r"results in .* are damaged"):
        computed(CASES[SAMPLES], tmp_path, [of_attack("m", "x")], 0.0)
    assert (tmp_path / RESULTS).read_text() == damage


def test_lines_without_their_samples_are_refused(tmp_path: Path) -> None:
    """The worst case is computed from samples, so it would be wrong without them."""
    computed(CASES[SAMPLES], tmp_path, [of_attack("m", "x")], 0.0)
    (tmp_path / SAMPLES).unlink()
    with pytest.raises(UserError, match=r"are damaged \(samples.h5 has no samples of a line"):
        computed(CASES[SAMPLES], tmp_path, [of_attack("m", "x")], 0.0)


@pytest.mark.parametrize("name", [PREDICTIONS, PREDICTION_FOLDER])
def test_predictions_without_their_row_are_refused(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    computed(case, tmp_path, [case.wanted("m", "x")], 0.0)
    (path,) = tmp_path.rglob("*.h5")
    with h5py.File(path, "r+") as file:
        del file["scores/x/m"].attrs["facts"]
    with pytest.raises(UserError, match=r"\.h5 is damaged .*; restore it, move it away to make its results again, or"):
        computed(case, tmp_path, [case.wanted("m", "x")], 0.0)


@pytest.mark.parametrize("text", ['{"mine": 1}\n', "notes\n"])
def test_a_results_file_of_something_else_is_refused_and_kept(case: Case, tmp_path: Path, text: str) -> None:
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(UserError, match="results"):
        computed(case, tmp_path, [case.wanted("m", "x")], 0.5)
    assert (tmp_path / RESULTS).read_text() == text


@pytest.mark.parametrize("damage", ["{", "{}"])
def test_damaged_rows_beside_predictions_are_refused(tmp_path: Path, damage: str) -> None:
    case = CASES[PREDICTIONS]
    computed(case, tmp_path, [case.wanted("m", "x")], 0.5)
    with h5py.File(tmp_path / PREDICTIONS, "r+") as file:
        next(iter(file["scores/x"].values())).attrs["facts"] = damage
    with pytest.raises(UserError, match="damaged"):
        computed(case, tmp_path, [case.wanted("m", "x")], 0.5)


@pytest.mark.parametrize("name", [PREDICTIONS, SAMPLES, RESULTS])
def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path, name: str) -> None:
    case = CASES[PREDICTIONS if name == PREDICTIONS else SAMPLES]
    (tmp_path / name).mkdir()
    if name == RESULTS:
        with h5py.File(tmp_path / SAMPLES, "w"):
            pass
    with pytest.raises(UserError, match=rf"{name} cannot be read \(Is a directory\)"):
        computed(case, tmp_path, [case.wanted("m", "x")], 0.5)
