"""A report on accuracy under attack as files, through its command, and the page in a real browser."""

import csv
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from basics.errors import UserError
from cli import advbn_gen
from reports.abnn import abnn_report
from reports.abnn_page import attack_charts, write_abnn_report
from reports.abnn_results import read_abnn_results
from reports.abnn_tables import accuracy_sentences
from tests.browser import Page, browser, require_fits_a_phone, require_self_contained
from tests.reports import attacked_rows
from tests.reports.attacked_rows import line, table_1, table_2
from tests.reports.test_gap_page import contrast

EVERYTHING = [*table_1(), *table_2(), line("pgd-50x5", 0.1, n=100, data_sha256="part")]
FILES = {"report.html", "report.md", "report.csv", "report.json"}


def table(*words: object, names: tuple[str, str] = ("abnn", "table")) -> Result:
    """Run the command as a user does."""
    return CliRunner().invoke(advbn_gen, [*names, *map(str, words)], catch_exceptions=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacked")
    attacked_rows.written(folder / "attacks/results.jsonl", EVERYTHING)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("abnn") / "report"
    write_abnn_report(out, EVERYTHING)
    return out


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser() as page:
        yield page


def test_the_four_files_agree(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == FILES
    report = json.loads((written / "report.json").read_text())
    with (written / "report.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(report["rows"]) == len(EVERYTHING)
    markdown, page = ((written / f"report.{kind}").read_text() for kind in ("md", "html"))
    for row, cells in zip(report["rows"], lines, strict=True):
        assert (cells["model"], cells["attack"], float(cells["accuracy"])) == (
            row["model"],
            row["attack"],
            row["accuracy"],
        )
        assert cells["published"] == ("" if row["published"] is None else str(row["published"]))
        assert json.loads(cells["settings"]) == row["settings"]
        shown = f"{100 * row['accuracy']:.1f}"
        assert shown in markdown
        assert shown in page
    for text in ("published: OUDefend", "not all of clean", "2.0% under worst, the lowest"):
        assert text in markdown
        assert text in page


def test_the_command_prints_tables_and_writes_nothing(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = table(results)
    assert not list(tmp_path.iterdir())
    assert done.exit_code == 0
    heads = [line for line in done.stdout.splitlines() if line.startswith("##")]
    assert [head.split(" ")[1] for head in heads] == ["CIFAR-10", "UCF-101", "Cost", "Settings"]
    (ours,) = (line for line in done.stdout.splitlines() if line.startswith("| ABNN: clips"))
    assert "70.0 [68.5, 71.4]" in ours


def test_the_command_prints_one_json_object(results: Path, tmp_path: Path) -> None:
    done = table(results, "--json")
    printed = json.loads(done.stdout)
    assert list(printed) == ["rows"]
    again = tmp_path / "again.json"
    again.write_text(done.stdout)
    assert abnn_report(read_abnn_results([again]))["rows"] == printed["rows"] == abnn_report(EVERYTHING)["rows"]


def test_the_command_is_also_one_of_the_reports(results: Path) -> None:
    done = table(results, names=("report", "abnn"))
    assert done.exit_code == 0
    assert done.stdout == table(results).stdout


@pytest.mark.slow
def test_the_command_writes_the_report(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report"
    done = table(results, "--out", out, "--json")
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads(done.stdout)["report"] == str(out / "report.html")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = table(results, results / "attacks", "--out", out)
    assert again.stdout.endswith(f"report: {out / 'report.html'}\n")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES))
def test_files_of_something_else_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"report": "reconstruction gap"}')
    with pytest.raises(UserError, match=f"holds a {name} of something else"):
        write_abnn_report(tmp_path, EVERYTHING)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        write_abnn_report(tmp_path / "out", EVERYTHING)


@pytest.mark.slow
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
    assert chromium.evaluate("document.querySelectorAll('table').length") == 5
    assert chromium.evaluate("document.querySelectorAll('svg.chart').length") == 2
    assert chromium.evaluate("document.querySelectorAll('.published').length") == 6


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_in_dark(chromium: Page, written: Path, dark: bool) -> None:
    chromium.look(1280, dark=dark)
    chromium.open(written / "report.html")
    for selector in ("body", ".note", ".published td", "svg.chart text", ".notes li", ".accuracy li", ".range"):
        assert contrast(chromium, selector) >= 4.5, selector


@pytest.mark.slow
def test_names_that_look_like_markup_stay_names(tmp_path: Path, chromium: Page) -> None:
    name = '<b>m</b> & "x" | <script>throw 1</script> $^$'
    rows = [line(f"{name}{number}", 0.5, model=name, task=f"t{name}", settings={name: name}) for number in (1, 2)]
    write_abnn_report(tmp_path, rows)
    chromium.look(1280)
    chromium.open(tmp_path / "report.html")
    assert chromium.complaints() == []
    assert chromium.evaluate("document.body.textContent").count(name) > 8
    tables = [each for each in (tmp_path / "report.md").read_text().splitlines() if each.startswith("|")]
    assert {each.replace(r"\|", "").count("|") for each in tables} == {7, 5}


@pytest.mark.slow
def test_charts_say_what_they_show() -> None:
    charts = attack_charts(abnn_report(EVERYTHING))
    assert len(charts) == 2
    for chart in charts:
        assert ET.fromstring(chart).attrib["role"] == "img"
        assert "currentColor" in chart
    assert "mean of 3 seeds (resnet18, width 0.25): clean 86.0, pgd-5 35.0" in charts[0]
    assert "ABNN: abnn-0: pgd-50x5 10.0" in charts[0]
    part = "ABNN: abnn-0: 10.0% under pgd-50x5."
    assert f"CIFAR-10, {part}" in accuracy_sentences(abnn_report(EVERYTHING))
