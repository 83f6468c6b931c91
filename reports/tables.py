"""Tables as cells that pages, Markdown and the terminal share; the tables of a gap report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from downstream.gap import ROLES
from reports.charts import ROLE_NAME
from reports.gap import GAPS, TOP_KS

NO_VALUE = "-"
"""Text of a cell without a value."""


@dataclass(frozen=True)
class Cell:
    """A value as text, with its interval."""

    value: str
    """The value."""
    range: str = ""
    """Its interval, with brackets; empty if it has none."""

    def __str__(self) -> str:
        return f"{self.value} {self.range}".strip()


@dataclass(frozen=True)
class Line:
    """A row of a table."""

    name: str
    """Cell of the first column."""
    cells: list[Cell]
    """The other cells."""
    published: bool = False
    """Whether the numbers are the paper's."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with its title."""

    title: str
    """Heading above it."""
    first: str
    """Head of the first column."""
    head: Sequence[str]
    """Heads of the other columns."""
    lines: Sequence[Line]
    """Rows below the head."""
    note: str
    """What a reader has to know, below it."""


def accuracy_head() -> list[str]:
    """Return the heads of the accuracy columns."""
    return [f"{ROLE_NAME[role]} top-{k}" for k in TOP_KS for role in ROLES]


def accuracy_lines(report: Mapping[str, Any], space: str = "all") -> list[Line]:
    """Return a line a model, each followed by the paper's line if there is one; empty if the space is not there.

    Args:
        report: see `reports.gap.gap_report`.
        space: `all` outputs, or `present` classes.
    """
    lines = []
    for name, by_role in _by_model(report).items():
        accuracies = [by_role[role] if space == "all" else by_role[role].get("present") for role in ROLES]
        if any(values is None for values in accuracies):
            return []
        cells = [_share(values, f"top{k}") for k in TOP_KS for values in accuracies]
        lines.append(Line(shown_name(by_role["advbn"]), cells))
        published = [by_role[role]["published"] for role in ROLES]
        if space == "all" and all(published):
            marked = published[0]["method"] + ("" if published[0]["same_data"] else ", on other data")
            cells = [_published(values[f"top{k}"]) for k in TOP_KS for values in published]
            lines.append(Line(f"published for {name}: {marked}", cells, published=True))
    return lines


def gap_head() -> list[str]:
    """Return the heads of the gap columns."""
    return [f"cost of the {name}, top-{k}" for k in TOP_KS for name in GAPS]


def gap_lines(report: Mapping[str, Any]) -> list[Line]:
    """Return the two gaps of each model, in percentage points."""
    return [
        Line(shown_name(gaps), [_points(gaps[f"{name}_top{k}"]) for k in TOP_KS for name in GAPS])
        for gaps in report["gaps"]
    ]


def curve_table(curve: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table of top-1 in per cent: a line for each model, a column for each scale."""
    scales = sorted({row["scale"] for row in curve})
    by_model: dict[str, dict[float, str]] = {}
    for row in curve:
        by_model.setdefault(row["model"], {})[row["scale"]] = f"{100 * row['top1']:.1f}"
    lines = [[model, *(top1[scale] for scale in scales)] for model, top1 in by_model.items()]
    return ["model", *(f"scale {scale:g}" for scale in scales)], lines


def shown_name(row: Mapping[str, Any]) -> str:
    """Return a model's name, with a note on whether the perturbation was made against it."""
    return f"{row['model']} ({'attacked' if row['attacked'] else 'not seen by the attack'})"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    head, *rows = ([cell.replace("|", r"\|") for cell in line] for line in (head, *rows))
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    lines = (head, rule, *rows)
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def markdown_parts(table: Table) -> list[str]:
    """Return a table with its title and its note as parts of a Markdown text."""
    lines = [[line.name, *map(str, line.cells)] for line in table.lines]
    return [f"## {table.title}", markdown_table([table.first, *table.head], lines), table.note]


def percent_cell(value: float, low: float, high: float) -> Cell:
    """Return a share and its 95% interval in per cent."""
    return Cell(f"{100 * value:.1f}", f"[{100 * low:.1f}, {100 * high:.1f}]")


def _by_model(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in report["rows"]:
        found.setdefault(row["model"], {})[row["data"]] = row
    return found


def _share(values: Mapping[str, float], name: str) -> Cell:
    return percent_cell(values[name], values[f"{name}_low"], values[f"{name}_high"])


def _published(value: float | None) -> Cell:
    return Cell(NO_VALUE if value is None else f"{100 * value:.1f}")


def _points(estimate: Mapping[str, float]) -> Cell:
    return percent_cell(estimate["value"], estimate["low"], estimate["high"])
