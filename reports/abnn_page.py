"""An ABNN report as files: `report.html` (one file, no network), `report.md`, `report.csv`, `report.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basics.files import require_writable_folder, write_texts
from reports.abnn import Report
from reports.abnn_tables import abnn_charts, abnn_tables
from reports.page import CSV, HTML, JSON, MARKDOWN, csv_text, render, software
from reports.tables import Table, markdown_table

_TITLE = "Adaptive batch normalisation networks under attack"
_CSV_COLUMNS = (
    "task", "method", "model", "attack", "n", "accuracy", "accuracy_low", "accuracy_high", "published_accuracy",
    "published_same_setting", "cost_formula", "cost_measured", "cost_time", "arch", "width", "seed", "weights_sha256",
    "data", "data_sha256", "settings", "seconds", "device", "precision",
)  # fmt: skip


def write_abnn_report(out: Path, report: Report) -> None:
    """Write all four files, or leave all as they were.

    Args:
        out: folder.
        report: see `reports.abnn.abnn_report`.

    Raises:
        UserError: the folder cannot be written.
    """
    tables = abnn_tables(report)
    texts = {
        JSON: json.dumps(report, indent=1, ensure_ascii=False) + "\n",
        CSV: csv_text(_CSV_COLUMNS, [{**row, **_flat(row)} for row in report["rows"]]),
        MARKDOWN: "\n\n".join([f"# {_TITLE}", *map(table_text, tables)]) + "\n",
        HTML: _page(report, tables),
    }
    require_writable_folder(out)
    write_texts(out, texts)


def table_text(table: Table) -> str:
    """Return a table in Markdown, with its title and note."""
    lines = [[line.name, *map(str, line.cells)] for line in table.lines]
    return f"## {table.title}\n\n{markdown_table([table.first, *table.head], lines)}\n\n{table.note}"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    published = {f"published_{name}": value for name, value in (row["published"] or {}).items()}
    return {**published, "settings": json.dumps(row["settings"])}


def _page(report: Report, tables: Sequence[Table]) -> str:
    charts = abnn_charts(report)
    return render(
        "abnn.html", title=_TITLE, report=report, tables=tables, charts=charts, software=software(report["rows"])
    )
