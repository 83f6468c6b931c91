"""Means over the parts of a test set."""

from typing import Any

import pytest

from downstream.summaries import summary_rows
from reports.shift import shift_report
from reports.shift_tables import missing_notes
from tests.reports.shifted_rows import C_NAMES, INSTAGRAM_NAMES, lines

FOG, FILTER = "imagenet-c/fog/3", "imagenet-instagram/Filter 7"


def same_images(names: list[str], n: int = 600) -> list[dict[str, Any]]:
    return lines("m", names, n=n, samples_sha256="same")


def changed(rows: list[dict[str, Any]], name: str, **values: Any) -> list[dict[str, Any]]:
    assert name in {row["data"] for row in rows}
    return [{**row, **values} if row["data"] == name else row for row in rows]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = summary_rows(rows)
    return found


HALF = {"n": 300, "samples_there": 300, "samples_sha256": "half"}


@pytest.mark.parametrize(
    ("values", "said"),
    [(HALF, "300 images instead of 600 in fog 3"), ({"samples_sha256": "others"}, "other images in fog 3")],
)
def test_a_severity_with_other_images_is_named_and_there_is_no_mce(values: dict[str, Any], said: str) -> None:
    rows = same_images(C_NAMES)
    whole, found = summary(rows), summary(changed(rows, FOG, **values))
    assert (whole["missing"], whole["partial"]) == ([], None)
    assert found["missing"] == [said]
    assert [found[name] for name in ("mce", "mean_error", "top1", "top5")] == [None] * 4
    assert {name for name, value in found["ce"].items() if value is None} == {"fog"}
    errors = [1 - row["top1"] for row in rows if row["data"] != FOG]
    assert found["partial"]["mean_error"] == pytest.approx(sum(errors) / 74)
    assert (found["partial"]["subsets"], found["partial"]["corruptions"]) == (74, 14)
    report = shift_report(changed(rows, FOG, **values), {})
    assert report["same_data"]["imagenet-c"] is False
    (note,) = missing_notes(report)
    assert note.startswith(f"m, imagenet-c: incomplete ({said}). Over the 74 present subsets: mean error ")


def test_a_filter_with_half_of_the_images_is_named_and_there_is_no_mean() -> None:
    rows = same_images(INSTAGRAM_NAMES)
    assert summary(rows)["top1"] == pytest.approx(sum(row["top1"] for row in rows) / 20)
    found = summary(changed(rows, FILTER, **HALF))
    assert (found["top1"], found["missing"]) == (None, ["300 images instead of 600 in Filter 7"])
    assert found["partial"]["filters"] == 19
    others = [row["top1"] for row in rows if row["data"] != FILTER]
    assert found["partial"]["top1"] == pytest.approx(sum(others) / 19)


def test_where_every_part_names_its_images_in_its_own_way_numbers_are_compared() -> None:
    rows = lines("m", INSTAGRAM_NAMES)
    assert len({row["samples_sha256"] for row in rows}) == 20
    assert summary(rows)["missing"] == []
    assert summary(changed(rows, FILTER, **HALF))["missing"] == ["300 images instead of 600 in Filter 7"]


def test_of_as_many_parts_of_either_number_the_smaller_ones_lack_images() -> None:
    rows = same_images(["imagenet-c/fog/1", FOG])
    assert "300 images instead of 600 in fog 3" in summary(changed(rows, FOG, **HALF))["missing"]
    assert "imagenet-c/fog/3" not in summary(changed(rows, FOG, **HALF))["missing"]
