"""The numbers of a shift report: ours and the paper's, wholes and parts, several folders."""

import json
from pathlib import Path
from typing import Any

import pytest

from basics.errors import UserError
from downstream.mce import CORRUPTIONS
from downstream.summaries import result_rows
from reports.abnn_results import read_abnn_results
from reports.page import require_own_report
from reports.shift import shift_report
from reports.shift_results import read_results
from reports.shift_tables import compact_table, missing_notes, shift_tables
from tests.reports.shifted_rows import C_NAMES, EVERYTHING, INSTAGRAM_NAMES, both, lines, written

SKETCH = {"data": "imagenet-sketch", "suite": "imagenet-sketch"}
FROM_SCORE = '{"model": "m", "data": "d", "n": 1, "top1": 1, "top5": 1}'


def report_of(rows: list[dict[str, Any]], **published: str) -> dict[str, Any]:
    return shift_report([row for row in result_rows(rows) if not row.get("summary")], published)


def rows_of(report: dict[str, Any]) -> dict[tuple[str, str | None, str], dict[str, Any]]:
    return {(row["model"], row["batch_norm"], row["data"]): row for row in report["rows"]}


def cells(report: dict[str, Any], title: str) -> dict[str, list[str]]:
    (table,) = (table for table in shift_tables(report) if title in table.title)
    return {line.name: [str(cell) for cell in line.cells] for line in table.lines}


def test_results_come_back_and_summaries_are_computed_anew(tmp_path: Path) -> None:
    rows = [*lines("a", EVERYTHING), *both("b", EVERYTHING)]
    found = read_results([written(tmp_path / "x", rows)])
    assert len(found) == 3 * len(EVERYTHING)
    assert not any(row.get("summary") for row in found)
    halves = [written(tmp_path / name, part) for name, part in (("1", rows[:40]), ("2", rows[30:]))]
    assert read_results(halves) == found
    assert rows_of(shift_report(found, {}))["a", None, "imagenet-c"]["missing"] == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pair": "other"}, "is another result in"),
        (
            {"data": "imagenet-sketch", "suite": "imagenet-sketch", "pair": "p", "weights_sha256": "other"},
            "Two different models",
        ),
        ({"model": "b", "pair": "p", "data_fingerprint": "other"}, "Two different data sets are called imagenet"),
    ],
)
def test_one_name_for_two_things_is_refused(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    row = lines("a", ["imagenet"])[0]
    folders = [written(tmp_path / "1", [row]), written(tmp_path / "2", [{**row, **changed}])]
    with pytest.raises(UserError, match=message):
        read_results(folders)


@pytest.mark.parametrize(
    "content", [None, "", "{}", "no json", '{"model": "m", "data": "d", "n": 1, "top1": 1, "top5": 1}']
)
def test_other_folders_are_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    with pytest.raises(UserError, match="advbn-gen evaluate"):
        read_results([tmp_path])


def test_published_numbers_stand_beside_their_model() -> None:
    report = report_of(
        [*lines("base", EVERYTHING), *both("tuned", EVERYTHING)], base="Standard Training", tuned="AdvBN"
    )
    rows = rows_of(report)

    def published(model: str, which: str | None, data: str) -> Any:
        return {
            k: v for k, v in (rows[model, which, data]["published"] or {}).items() if k not in {"method", "same_data"}
        }

    assert published("base", None, "imagenet") == {"top1": 0.761}
    assert published("base", None, "imagenet-c")["mce"] == 76.7
    assert published("base", None, "imagenet-c")["ce"]["fog"] == 66
    assert published("tuned", "main", "imagenet") == {"top1": 0.77}
    assert published("tuned", "auxiliary", "imagenet") == {}
    assert published("tuned", "main", "imagenet-c")["mce"] == 72.7
    assert published("tuned", "auxiliary", "imagenet-c") == {"mce": 72.4}
    assert [published("tuned", which, "imagenet-sketch")["top1"] for which in ("main", "auxiliary")] == [0.264, 0.279]
    assert [published("tuned", which, "imagenet-style")["top1"] for which in ("main", "auxiliary")] == [0.09, 0.119]
    assert published("base", None, "imagenet-c/fog/1") == published("base", None, "imagenet-advbn-vgg") == {}


def test_table_5_stands_beside_augmix() -> None:
    rows = rows_of(report_of(lines("m", C_NAMES), m="AugMix"))
    assert rows["m", None, "imagenet-c/gaussian_noise/5"]["published"]["top1"] == 0.06
    assert "mce" not in (rows["m", None, "imagenet-c"]["published"] or {})


def test_only_published_weights_of_resnet50_are_the_papers_by_themselves() -> None:
    rows = [*lines("resnet50", ["imagenet"], weights="published"), *lines("m", ["imagenet"])]
    assert report_of(rows)["published_rows"] == {"resnet50": "Standard Training"}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="names the model x, which is none of m"):
        report_of(lines("m", ["imagenet"]), x="AdvBN")
    with pytest.raises(UserError, match="names no row; give one of Standard Training"):
        report_of(lines("m", ["imagenet"]), m="Nobody's")


def test_published_lines_say_when_the_data_are_others() -> None:
    small, complete = (report_of(lines("m", EVERYTHING, n=n), m="AdvBN") for n in (600, 50_000))
    assert set(small["same_data"].values()) == {False}
    assert set(complete["same_data"].values()) == {True}
    assert "published: AdvBN, on other data" in cells(small, "Table 4")
    assert "published: AdvBN" in cells(complete, "Table 4")
    part = report_of(lines("m", C_NAMES[1:], n=50_000))
    assert part["same_data"] == {"imagenet-c": False}
    drawn = report_of(lines("m", C_NAMES, n=50_000, imagenet=False))
    assert drawn["same_data"] == {"imagenet-c": False}


def test_tables_hold_the_rows_numbers() -> None:
    report = report_of([*lines("base", EVERYTHING), *both("tuned", EVERYTHING)])
    rows = rows_of(report)
    c = rows["base", None, "imagenet-c"]
    errors = [100 * (1 - rows["base", None, name]["top1"]) for name in C_NAMES]
    table_4 = cells(report, "Table 4")["base"]
    assert table_4[0] == f"{100 * (1 - rows['base', None, 'imagenet']['top1']):.1f}"
    assert table_4[1:3] == [f"{c['mce']:.1f}", f"{sum(errors) / 75:.1f}"]
    assert table_4[1] != table_4[2]
    assert cells(report, "Table 5")["shot noise: base"] == [f"{error:.1f}" for error in errors[5:10]]
    assert cells(report, "Table 5")["shot noise: published: AugMix + AdvBN, on other data"] == [
        "32",
        "39",
        "49",
        "69",
        "81",
    ]
    table_7 = cells(report, "Table 7")
    sketch = [f"{100 * rows['tuned', which, 'imagenet-sketch']['top1']:.1f}" for which in ("main", "auxiliary")]
    assert [table_7[f"tuned, {which} batch norm"][3] for which in ("main", "auxiliary")] == [sketch[0], f"{sketch[1]}*"]
    assert table_7["published: AdvBN, auxiliary batch norm, on other data"] == ["-", "72.4", "68.5", "27.9", "11.9"]
    table_6 = cells(report, "Tables 1 and 6")
    assert table_6["tuned"][3] == sketch[1]
    assert table_6["tuned"][1] == f"{rows['tuned', 'main', 'imagenet-c']['mce']:.1f}"
    assert cells(report, "ImageNet-AdvBN")["base"][1] == "100.0"


def test_the_compact_table_shows_both_sets_and_both_means() -> None:
    report = report_of(both("tuned", EVERYTHING))
    head, ((name, *values),) = compact_table(report)
    rows = rows_of(report)
    assert name == "tuned (main / auxiliary)"
    by_column = dict(zip(head[1:], values, strict=True))
    mce = [rows["tuned", which, "imagenet-c"]["mce"] for which in ("main", "auxiliary")]
    plain = [100 * rows["tuned", which, "imagenet-c"]["mean_error"] for which in ("main", "auxiliary")]
    assert by_column["ImageNet-C mCE"] == f"{mce[0]:.1f}* / {mce[1]:.1f}"
    assert by_column["ImageNet-C mean error"] == f"{plain[0]:.1f} / {plain[1]:.1f}"
    assert by_column["Style top-1"].endswith("*")


def test_parts_have_no_mean_and_are_named() -> None:
    present = [name for name in C_NAMES if name not in {"imagenet-c/fog/1", "imagenet-c/fog/4"}]
    report = report_of(lines("m", [*present, *INSTAGRAM_NAMES[:3]]))
    table_4 = cells(report, "Table 4")["m"]
    assert table_4[1:3] == ["-", "-"]
    values = dict(zip(CORRUPTIONS, table_4[3:], strict=True))
    assert [name for name, value in values.items() if value == "-"] == ["fog"]
    corrupted, instagram = missing_notes(report)
    assert "imagenet-c: incomplete (without fog 1 4)" in corrupted
    assert "14 complete corruptions" in corrupted
    assert "incomplete (3 filters instead of 20)" in instagram
    assert compact_table(report)[1][0][1:] == ["-", "-", "-"]


@pytest.mark.parametrize(
    "changed", [{"imagenet": None}, {"batch_norm": "third"}, {"data": "imagenet-c-fog"}, {"samples_there": "many"}]
)
def test_lines_of_another_form_are_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    rows = lines("m", ["imagenet-c/fog/1"])
    (tmp_path / "results.jsonl").write_text(json.dumps({**rows[0], **changed}))
    with pytest.raises(UserError, match=r"holds no results|does not hold results"):
        read_results([tmp_path])
    bare = {name: value for name, value in rows[0].items() if name not in changed}
    (tmp_path / "results.jsonl").write_text(json.dumps(bare))
    with pytest.raises(UserError, match=r"does not hold results"):
        read_results([tmp_path])


def test_scoring_only_the_first_images_of_a_set_is_reported() -> None:
    report = shift_report(lines("m", ["imagenet-sketch"], n=600, samples_there=50_000), {})
    assert missing_notes(report) == ["m, imagenet-sketch: 600 of 50000 images only."]


def test_results_that_cannot_be_read_are_not_called_those_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(UserError, match=r"results\.jsonl cannot be read \(Is a directory\)"):
        read_results([tmp_path])
    with pytest.raises(UserError, match=r"results\.jsonl cannot be read \(Is a directory\)"):
        read_abnn_results([tmp_path])
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UserError, match=r"report\.json cannot be read \(Is a directory\)"):
        require_own_report(tmp_path, "gap")
