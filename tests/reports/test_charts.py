"""Charts are well-formed, describe their values in a text, and leave colours of text to the page."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from reports.charts import accuracy_chart, ascent_chart, class_chart, delta_chart, quality_chart
from reports.gap import gap_report
from tests.reports.synthetic import synthetic_inputs


def charts(models: int = 2) -> list[str]:
    inputs = synthetic_inputs(200, models, 12)
    report = gap_report(inputs)
    return [
        accuracy_chart(report).svg(),
        ascent_chart(report["ascent"]).svg(),
        delta_chart(report["ascent"]).svg(),
        class_chart(report["classes"], "model-1").svg(),
        quality_chart("psnr", inputs.quality["psnr"], "PSNR (dB)"),
    ]


@pytest.mark.slow
def test_they_are_well_formed_and_say_what_they_show() -> None:
    for chart in charts():
        root = ET.fromstring(chart)
        assert root.tag.endswith("svg")
        assert root.attrib["role"] == "img"
        assert len(root.attrib["aria-label"]) > 20
    shares = [row["top1"] for row in gap_report(synthetic_inputs(200, 2, 12))["rows"][:3]]
    assert "model-0: original {:.1%}, reconstructed {:.1%}, AdvBN {:.1%}".format(*shares) in charts()[0]


@pytest.mark.slow
def test_text_has_the_pages_colour() -> None:
    for chart in charts():
        assert "currentColor" in chart
        assert "#010203" not in chart
        assert "<text" in chart, "text must stay text, for readers and searches"


@pytest.mark.slow
def test_no_two_charts_share_a_name() -> None:
    seen: set[str] = set()
    for chart in charts():
        names = re.findall(r'\bid="([^"]+)"', chart)
        assert len(names) == len(set(names))
        assert not seen & set(names)
        seen |= set(names)
        for used in re.findall(r"url\(#([^)]+)\)", chart) + re.findall(r'href="#([^"]+)"', chart):
            assert used in names


@pytest.mark.slow
def test_equal_numbers_give_equal_charts() -> None:
    assert charts() == charts()


@pytest.mark.slow
def test_extreme_numbers_can_be_drawn() -> None:
    assert quality_chart("psnr", np.full(3, 100.0), "PSNR (dB)")
    inputs = synthetic_inputs(5, 14, 1000)
    assert accuracy_chart(gap_report(inputs)).svg().count("model-13") >= 1


@pytest.mark.slow
def test_a_chart_is_a_figure_as_well() -> None:
    figure = accuracy_chart(gap_report(synthetic_inputs(200, 2, 12))).figure()
    (axes,) = figure.axes
    assert axes.get_xlabel() == "top-1 (%)"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["model-0", "model-1"]
