"""A shift report as files, and the page in a real browser."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from basics.errors import UserError
from downstream.summaries import result_rows
from reports.shift import shift_report
from reports.shift_charts import corruption_chart, set_chart
from reports.shift_page import write_shift_report
from tests.browser import Page, browser, require_fits_a_phone, require_self_contained
from tests.reports.shifted_rows import C_NAMES, EVERYTHING, both, lines
from tests.reports.test_gap_page import contrast


def write(out: Path, rows: list[dict[str, Any]], **published: str) -> dict[str, Any]:
    return write_shift_report(out, [row for row in result_rows(rows) if not row.get("summary")], published)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shift") / "report"
    write(out, [*lines("base", EVERYTHING[1:]), *both("tuned", EVERYTHING)], tuned="AdvBN")
    return out


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser() as page:
        yield page


def test_the_four_files_agree(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {"report.html", "report.md", "report.csv", "report.json"}
    rows = json.loads((written / "report.json").read_text())["rows"]
    with (written / "report.csv").open() as file:
        written_rows = list(csv.DictReader(file))
    assert len(written_rows) == len(rows) == 3 * len(EVERYTHING) - 1 + 6
    markdown, page = ((written / f"report.{kind}").read_text() for kind in ("md", "html"))
    for row, line in zip(rows, written_rows, strict=True):
        assert row.keys() >= {"model", "data", "n", "top1", "top5", "batch_norm", "published_choice", "published"}
        assert (line["model"], line["data"], line["batch_norm"]) == (row["model"], row["data"], row["batch_norm"] or "")
        assert line["top1"] == ("" if row["top1"] is None else str(row["top1"]))
        if row.get("mce") is not None:
            assert f"{row['mce']:.1f}" in markdown
            assert f"{row['mce']:.1f}" in page
    assert "without gaussian_noise 1" in markdown
    assert "without gaussian_noise 1" in page
    assert "on other data" in markdown
    assert "tuned (the paper&#39;s AdvBN)" in page


@pytest.mark.slow
def test_another_kind_of_report_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"report": "reconstruction gap"}')
    with pytest.raises(UserError, match=r"report\.json of something else .*reconstruction gap -> accuracy under shift"):
        write(tmp_path, lines("base", EVERYTHING))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_nothing_is_logged_thrown_or_loaded_from_the_network(chromium: Page, written: Path) -> None:
    require_self_contained(chromium, written / "report.html")


@pytest.mark.slow
def test_it_fits_a_phone(chromium: Page, written: Path) -> None:
    require_fits_a_phone(chromium, written / "report.html")


@pytest.mark.slow
def test_without_scripts_every_table_is_there(chromium: Page, written: Path) -> None:
    chromium.look(1280, script=False)
    chromium.open(written / "report.html")
    chromium.look(1280, script=True)
    titles = chromium.evaluate("[...document.querySelectorAll('h2')].map(each => each.textContent)")
    for number in ("4", "5", "6", "7"):
        assert any(re.search(rf"Tables? (\d and )?{number}", title) for title in titles), titles
    assert chromium.evaluate("document.querySelectorAll('table').length") == 6
    assert chromium.evaluate("document.querySelectorAll('svg.chart').length") == 2


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_in_dark(chromium: Page, written: Path, dark: bool) -> None:
    chromium.look(1280, dark=dark)
    chromium.open(written / "report.html")
    for selector in ("body", ".note", ".published td", "svg.chart text", ".missing li"):
        assert contrast(chromium, selector) >= 4.5, selector
    paper = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


@pytest.mark.slow
def test_names_that_look_like_markup_stay_names(tmp_path: Path, chromium: Page) -> None:
    name = '<b>m</b> & "x" | <script>throw 1</script> $^$'
    write(tmp_path, lines(name, C_NAMES))
    chromium.look(1280)
    chromium.open(tmp_path / "report.html")
    assert chromium.complaints() == []
    assert name in chromium.evaluate("document.body.textContent")
    tables = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in tables} == {7, 20}


@pytest.mark.slow
def test_charts_say_what_they_show() -> None:
    rows = result_rows([*lines("base", EVERYTHING), *both("tuned", EVERYTHING)])
    report = shift_report([row for row in rows if not row.get("summary")], {})
    charts = [corruption_chart(report), set_chart(report)]
    for chart in charts:
        root = ET.fromstring(chart)
        assert root.attrib["role"] == "img"
        assert "currentColor" in chart
    (summary,) = (row for row in rows if row["data"] == "imagenet-c" and row["model"] == "base")
    assert f"fog {summary['ce']['fog']:.1f}" in charts[0]
    assert "tuned, auxiliary" in charts[1]


def test_without_a_whole_corruption_there_is_no_chart_of_them() -> None:
    rows = lines("m", ["imagenet-c/fog/1", "imagenet-c/snow/2"])
    assert corruption_chart(shift_report(result_rows(rows)[:2], {})) == ""
    assert set_chart(shift_report(result_rows(rows)[:2], {})) == ""
