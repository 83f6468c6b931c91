"""The report as files, and the page in a real browser."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.gap_page import write_gap_report
from tests.browser import Page, browser
from tests.reports.synthetic import synthetic_inputs, synthetic_samples, values_of

SAMPLES = 9


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    inputs = synthetic_inputs(400, 3, 40, present=True, published={"model-2": "AugMix"})
    write_gap_report(out, inputs, synthetic_samples(inputs, SAMPLES), picture_side=192)
    return out


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(chromium: Page, written: Path) -> Page:
    chromium.look(1280)
    chromium.open(written / "report.html")
    return chromium


def test_the_four_files_agree(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {"report.html", "report.md", "report.csv", "report.json"}
    rows = values_of(written)["rows"]
    with (written / "report.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows) == 9
    markdown, page = ((written / f"report.{kind}").read_text() for kind in ("md", "html"))
    for row, line in zip(rows, lines, strict=True):
        assert (line["model"], line["data"]) == (row["model"], row["data"])
        assert float(line["top1"]) == row["top1"]
        assert float(line["present_top1"]) == row["present"]["top1"]
        share = f"{100 * row['top1']:.1f} [{100 * row['top1_low']:.1f}, {100 * row['top1_high']:.1f}]"
        assert share in markdown
        assert f"[{100 * row['top1_low']:.1f}, {100 * row['top1_high']:.1f}]" in page
    assert "published for model-2: AugMix, on other data" in markdown
    assert "other data than these" in markdown


def test_nothing_is_logged_thrown_or_loaded_from_the_network(page: Page, written: Path) -> None:
    assert page.complaints() == []
    assert page.requests() == [(written / "report.html").as_uri()]


def test_no_address_outside_is_named_as_a_resource(written: Path) -> None:
    text = (written / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text)
    assert "@import" not in text


KEYS = "[...document.querySelectorAll('.card')].map(card => card.querySelector('.small').textContent.split(',')[0])"
LOSSES = "[...document.querySelectorAll('.card')].map(card => Number(card.dataset.loss))"


def choose(page: Page, order: str) -> None:
    page.evaluate(f"document.querySelector('#sort').value = '{order}'")
    page.evaluate("document.querySelector('#sort').dispatchEvent(new Event('change'))")


@pytest.mark.slow
def test_the_gallery_sorts(page: Page) -> None:
    before = page.evaluate(KEYS)
    losses = page.evaluate(LOSSES)
    assert len(before) == SAMPLES
    assert losses not in (sorted(losses), sorted(losses, reverse=True))
    choose(page, "highest")
    assert page.evaluate(LOSSES) == sorted(losses, reverse=True)
    choose(page, "lowest")
    assert page.evaluate(LOSSES) == sorted(losses)
    choose(page, "name")
    names = page.evaluate("[...document.querySelectorAll('.card')].map(card => card.dataset.name)")
    assert names == sorted(names, key=str.lower)
    choose(page, "order")
    assert page.evaluate(KEYS) == before
    assert page.complaints() == []


SHOWN = "[...document.querySelector('.pictures').children].map(f => getComputedStyle(f).display !== 'none')"


def test_the_flip_flips(page: Page) -> None:
    assert page.evaluate(SHOWN) == [True, True, True]
    page.evaluate("document.querySelector('#flip').click()")
    assert page.evaluate(SHOWN) == [True, False, False]
    assert page.evaluate("document.querySelector('#flip').getAttribute('aria-pressed')") == "true"
    for expected in ([False, True, False], [False, False, True], [True, False, False]):
        page.evaluate("document.querySelector('.pictures img').click()")
        assert page.evaluate(SHOWN) == expected
    page.evaluate(
        "document.querySelector('.pictures').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'ArrowLeft', bubbles: true, cancelable: true}))"
    )
    assert page.evaluate(SHOWN) == [False, False, True]
    page.evaluate("document.querySelector('#flip').click()")
    assert page.evaluate(SHOWN) == [True, True, True]
    assert page.complaints() == []


@pytest.mark.slow
def test_without_scripts_everything_is_there(chromium: Page, written: Path) -> None:
    chromium.look(1280, script=False)
    chromium.open(written / "report.html")
    chromium.look(1280, script=True)
    assert chromium.evaluate(SHOWN) == [True, True, True]
    assert chromium.evaluate("document.querySelector('.bar').hidden")
    assert chromium.evaluate("document.querySelectorAll('.card details').length") == SAMPLES


@pytest.mark.slow
def test_it_fits_a_phone(chromium: Page, written: Path) -> None:
    chromium.look(360, 740)
    chromium.open(written / "report.html")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 360


def contrast(page: Page, selector: str) -> float:
    """WCAG's contrast ratio of an element's text against the page."""
    ink, paper = page.evaluate(
        f"[getComputedStyle(document.querySelector('{selector}')).color, "
        "getComputedStyle(document.body).backgroundColor]"
    )

    def luminance(colour: str) -> float:
        channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_in_dark(chromium: Page, written: Path, dark: bool) -> None:
    chromium.look(1280, dark=dark)
    chromium.open(written / "report.html")
    for selector in ("body", ".note", ".range", ".correct", ".wrong", "svg.chart text"):
        assert contrast(chromium, selector) >= 4.5, selector
    paper = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def test_pictures_have_words(page: Page) -> None:
    assert page.evaluate("[...document.querySelectorAll('img')].every(image => image.alt.length > 5)")
    assert page.evaluate("[...document.querySelectorAll('svg.chart')].every(chart => chart.ariaLabel.length > 20)")


@pytest.mark.slow
def test_names_that_look_like_markup_stay_names(tmp_path: Path, chromium: Page) -> None:
    names = [f'<b>class</b> & "{number}" <script>throw 1</script>' for number in range(12)]
    inputs = synthetic_inputs(60, 1, 12, class_names=names)
    write_gap_report(tmp_path, inputs, synthetic_samples(inputs, 2), picture_side=48)
    chromium.look(1280)
    chromium.open(tmp_path / "report.html")
    assert chromium.complaints() == []
    assert names[0].split()[0] in chromium.evaluate("document.body.textContent")


def test_nothing_sticks_out_of_a_card(page: Page) -> None:
    wide = "[...document.querySelectorAll('.card')].filter(card => card.scrollWidth > card.clientWidth).length"
    assert page.evaluate(wide) == 0
