"""A chart of several series of values, one row of marks for each thing that was measured."""

from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.axes import Axes

from reports.charts import legend_above, short, svg

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette: can be told apart by the colour-blind."""
_MARKERS = ("o", "D", "s", "^", "v", "P", "X")
_LEGEND_COLUMNS = 2

Series = Mapping[str, Mapping[str, float]]
"""Name in the legend -> row of the chart -> value."""


def dots_chart(name: str, rows: Sequence[str], series: Series, label: str) -> str:
    """Draw a row of marks for each of `rows`; empty if there is none.

    Args:
        name: of the chart, unique on its page.
        rows: what was measured, from above.
        series: values, see `Series`.
        label: of the axis.
    """
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
