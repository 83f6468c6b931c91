"""Charts of a shift report."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes

from downstream.mce import CORRUPTIONS
from downstream.suites import IMAGENET_C
from reports.charts import legend_above, short, svg
from reports.shift import Report, entrants, row_of

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette: can be told apart by the colour-blind."""
_MARKERS = ("o", "D", "s", "^", "v", "P", "X")
_LEGEND_COLUMNS = 2

Series = Mapping[str, Mapping[str, float]]
"""Name in the legend -> row of the chart -> value."""


def corruption_chart(report: Report) -> str:
    """Draw each model's corruption errors; empty if no corruption is whole."""
    series = {}
    for name, model, which in _named_entrants(report):
        row = row_of(report, model, which, IMAGENET_C)
        if row is not None:
            series[name] = {each: value for each, value in row["ce"].items() if value is not None}
    rows = [name for name in CORRUPTIONS if any(name in values for values in series.values())]
    return _dots("corruptions", rows, series, "corruption error (% of AlexNet's error; lower is better)")


def set_chart(report: Report) -> str:
    """Draw each model's top-1 on each test set that was scored whole."""
    sets = list(dict.fromkeys(row["data"] for row in report["rows"] if "/" not in row["data"]))
    series = {
        name: {data: value for data in sets if (value := _top1(row_of(report, model, which, data))) is not None}
        for name, model, which in _named_entrants(report)
    }
    rows = [data for data in sets if any(data in values for values in series.values())]
    return _dots("sets", rows, series, "top-1 (%; higher is better)")


def _top1(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None or row["top1"] is None else 100 * row["top1"]


def _named_entrants(report: Report) -> list[tuple[str, str, str | None]]:
    return [
        (model if which is None else f"{model}, {which}", model, which)
        for model in report["models"]
        for which in entrants(report, model)
    ]


def _dots(name: str, rows: Sequence[str], series: Series, label: str) -> str:
    """Draw a row of marks for each of `rows`; empty if there is none."""
    if not rows:
        return ""
    shown = {each: values for each, values in series.items() if values}

    def draw(axes: Axes) -> None:
        styles = zip(cycle(_COLOURS), cycle(_MARKERS), strict=False)
        for (each, values), (colour, marker) in zip(shown.items(), styles, strict=False):
            places = [place for place, row in enumerate(rows) if row in values]
            axes.plot(
                [values[rows[place]] for place in places], places, linestyle="", marker=marker, color=colour,
                label=short(each), markersize=6,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [short(row.replace("_", " ")) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set(xlabel=label)
        legend_above(axes, _LEGEND_COLUMNS)

    told = "; ".join(
        f"{each}: " + ", ".join(f"{row} {values[row]:.1f}" for row in rows if row in values)
        for each, values in shown.items()
    )
    height = 1.2 + 0.28 * len(rows) + 0.25 * -(-len(shown) // _LEGEND_COLUMNS)
    return svg(name, draw, f"{label}. {told}.", height)
