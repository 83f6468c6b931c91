"""Charts as inline SVG: text in the page's own colour, data in colours that the colour-blind can distinguish."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

ROLE_STYLE = {"original": ("#0072B2", "o"), "reconstructed": ("#E69F00", "s"), "advbn": ("#D55E00", "D")}
"""Colour (Okabe and Ito's palette) and marker of each data set."""
ROLE_NAME = {"original": "original", "reconstructed": "reconstructed", "advbn": "AdvBN"}

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, which the colour-blind can distinguish."""
_MARKERS = ("o", "D", "s", "^", "v", "P", "X")
_LEGEND_COLUMNS = 2
_LANES = 0.6
"""How much of a row the marks of several series with ranges share between them."""

Series = Mapping[str, Mapping[str, float]]
"""Name in the legend -> row of the chart -> value."""
Ranges = Mapping[str, Mapping[str, tuple[float, float]]]
"""The same -> lowest and highest value."""

Draw = Callable[[Axes], None]
"""Draws on the axes that it is given."""
_WIDTH = 6.6
_LONGEST_NAME = 30
_INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold a dollar sign
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    **dict.fromkeys(_INKED, _INK),
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Chart:
    """A chart that can be drawn: as a figure for a notebook, or as SVG for a page."""

    name: str
    """Name, which no other chart of a page has."""
    draw: Draw
    alt: str
    """What it shows, in words."""
    height: float
    """In inches, as the width."""
    width: float = _WIDTH

    def figure(self) -> Figure:
        """Return it as a figure of matplotlib in usual colours."""
        style: Any = {**_STYLE, **dict.fromkeys(_INKED, "black")}
        with mpl.rc_context(style):
            figure = Figure(figsize=(self.width, self.height), layout="constrained")
            self.draw(figure.add_subplot())
        return figure

    def svg(self) -> str:
        """Return it as an SVG element whose names cannot collide with those of another one on the page."""
        style: Any = {**_STYLE, "svg.hashsalt": self.name}
        with mpl.rc_context(style):
            figure = Figure(figsize=(self.width, self.height), layout="constrained")
            figure.patch.set_alpha(0)
            axes = figure.add_subplot()
            axes.patch.set_alpha(0)
            self.draw(axes)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        drawn = buffer.getvalue()
        drawn = drawn[drawn.index("<svg") :].replace(_INK, "currentColor")
        drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{self.name}-", drawn)
        return drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(self.alt)}" class="chart" ', 1)


def accuracy_chart(report: Mapping[str, Any]) -> Chart:
    """Draw each model's top-1 in the three data sets with 95% intervals."""
    models = list(dict.fromkeys(row["model"] for row in report["rows"]))

    def draw(axes: Axes) -> None:
        for offset, (role, (colour, marker)) in zip((-0.2, 0.0, 0.2), ROLE_STYLE.items(), strict=True):
            rows = [row for row in report["rows"] if row["data"] == role]
            value = np.array([row["top1"] for row in rows]) * 100
            low, high = (np.array([row[f"top1_{end}"] for row in rows]) * 100 for end in ("low", "high"))
            axes.errorbar(
                value,
                np.arange(len(models)) + offset,
                xerr=(value - np.minimum(low, value), np.maximum(high, value) - value),
                fmt=marker,
                color=colour,
                label=ROLE_NAME[role],
                capsize=2,
                markersize=6,
            )
        axes.set_yticks(range(len(models)), [short(model) for model in models])
        axes.set(xlim=(-2, 102), xlabel="top-1 (%)")
        axes.set_ylim(len(models) - 0.5, -0.5)
        legend_above(axes, 3)

    alt = "; ".join(
        f"{model}: "
        + ", ".join(f"{ROLE_NAME[row['data']]} {row['top1']:.1%}" for row in report["rows"] if row["model"] == model)
        for model in models
    )
    return Chart("accuracy", draw, f"Top-1 accuracy. {alt}.", height=1.1 + 0.5 * len(models))


def ascent_chart(ascent: Mapping[str, Any]) -> Chart:
    """Draw how the batches' loss climbed over the steps."""
    mean, low, high = (ascent[name] for name in ("loss_mean", "loss_q10", "loss_q90"))
    colour = ROLE_STYLE["advbn"][0]

    def draw(axes: Axes) -> None:
        steps = range(len(mean))
        axes.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0, label="10% to 90% of the batches")
        axes.plot(steps, mean, color=colour, marker="o", label="mean")
        axes.set(xlabel="steps taken", ylabel="cross-entropy", xticks=list(steps))
        axes.set_ylim(bottom=0)
        legend_above(axes, 2)

    return Chart("ascent", draw, f"Mean loss of the attacked classifier, from {mean[0]:.2f} to {mean[-1]:.2f}.", 2.8)


def delta_chart(ascent: Mapping[str, Any]) -> Chart:
    """Draw how the multipliers of means and standard deviations are distributed."""
    edges = np.array(ascent["delta_edges"])

    def draw(axes: Axes) -> None:
        for name, label, style in (("delta_mean", "of means", "-"), ("delta_std", "of standard deviations", "--")):
            colour = ROLE_STYLE["original" if name == "delta_mean" else "advbn"][0]
            shares = np.array(ascent[name]) * 100
            axes.stairs(shares, edges, color=colour, linestyle=style, linewidth=1.6, label=f"multipliers {label}")
        axes.set(xlabel="multiplier (1 leaves the channel as it is)", ylabel="% of multipliers")
        legend_above(axes, 2)

    alt = f"Distribution of the multipliers between {edges[0]:.2f} and {edges[-1]:.2f}."
    return Chart("deltas", draw, alt, 2.8)


def curve_chart(curve: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw each model's top-1 over the scale of the perturbation, with 95% intervals."""
    models = list(dict.fromkeys(row["model"] for row in curve))

    def draw(axes: Axes) -> None:
        for model, colour, marker in zip(models, cycle(_COLOURS), cycle(_MARKERS), strict=False):
            rows = [row for row in curve if row["model"] == model]
            scales = [row["scale"] for row in rows]
            low, high = ([100 * row[f"top1_{end}"] for row in rows] for end in ("low", "high"))
            axes.fill_between(scales, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(scales, [100 * row["top1"] for row in rows], color=colour, marker=marker, label=short(model))
        axes.set(xlabel="scale of the perturbation (0: reconstructions, 1: AdvBN)", ylabel="top-1 (%)")
        axes.set_ylim(bottom=0)
        legend_above(axes, _LEGEND_COLUMNS)

    return Chart("curve", draw, f"Top-1 of {len(models)} models over the scale of the perturbation.", 3.2)


def class_chart(classes: Sequence[Mapping[str, Any]], model: str) -> Chart:
    """Draw each class's top-1 before and after the perturbation, one point a class."""
    before, after = (
        np.array([each["top1"][model][role] for each in classes]) * 100 for role in ("reconstructed", "advbn")
    )

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=_INK, alpha=0.4, linewidth=1, linestyle=":")
        axes.scatter(
            before, after, s=60 if len(classes) < 50 else 14, color=ROLE_STYLE["advbn"][0], alpha=0.6, linewidth=0
        )
        axes.set(xlim=(-3, 103), ylim=(-3, 103), xlabel="reconstructed, top-1 (%)", ylabel="AdvBN, top-1 (%)")

    alt = f"{model}: {int((after < before).sum())} of {len(classes)} classes lose accuracy to the perturbation."
    return Chart("classes", draw, alt, 3.4)


def quality_chart(name: str, values_N: NDArray[np.float64], label: str) -> str:
    """Draw how a measure of the reconstructions is distributed."""

    def draw(axes: Axes) -> None:
        axes.hist(values_N, bins=40, color=ROLE_STYLE["reconstructed"][0])
        axes.axvline(float(values_N.mean()), color=_INK, linestyle="--", linewidth=1.2)
        axes.set(xlabel=label, ylabel="images")

    return svg(f"quality-{name}", draw, f"Distribution of {label}; mean {values_N.mean():.3g}.", 2.2, width=4.2)


def dots_chart(name: str, rows: Sequence[str], series: Series, label: str, ranges: Ranges | None = None) -> str:
    """Draw a row of marks for each of `rows`, with their ranges if there are any; empty if there is no row.

    Marks with ranges lie in lanes, so that no range hides another; marks without lie on one line.
    """
    if not rows:
        return ""
    shown = {each: values for each, values in series.items() if values}
    lanes = np.linspace(-_LANES / 2, _LANES / 2, len(shown)) if ranges and len(shown) > 1 else np.zeros(len(shown))

    def draw(axes: Axes) -> None:
        styles = zip(shown.items(), lanes, cycle(_COLOURS), cycle(_MARKERS), strict=False)
        for (each, values), lane, colour, marker in styles:
            present = [row for row in rows if row in values]
            positions = [rows.index(row) + lane for row in present]
            if ranges:
                ends = np.array([ranges[each][row] for row in present])
                axes.hlines(positions, ends[:, 0], ends[:, 1], color=colour)
            axes.plot(
                [values[row] for row in present], positions, linestyle="", marker=marker, color=colour,
                label=short(each), markersize=6, clip_on=False,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [short(row.replace("_", " ")) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set(xlabel=label)
        legend_above(axes, _LEGEND_COLUMNS)

    alt = "; ".join(
        f"{each}: " + ", ".join(f"{row} {values[row]:.1f}" for row in rows if row in values)
        for each, values in shown.items()
    )
    height = 1.2 + (0.28 if not ranges else 0.16 + 0.12 * len(shown)) * len(rows)
    return svg(name, draw, f"{label}. {alt}.", height + 0.25 * -(-len(shown) // _LEGEND_COLUMNS))


def short(name: str) -> str:
    """Return a name, cut if it is too long for an axis."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"


def legend_above(axes: Axes, columns: int) -> None:
    """Put the legend above the axes, in a number of columns."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=columns, borderaxespad=0)


def svg(name: str, draw: Draw, alt: str, height: float, width: float = _WIDTH) -> str:
    """Return a chart as an SVG element, see `Chart`."""
    return Chart(name, draw, alt, height, width).svg()
