"""A shift report as files: `report.html` (one file, no network), `report.md`, `report.csv`, `report.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from basics.progress import counted
from downstream.result_store import Row
from downstream.suites import IMAGENET_C
from reports.page import csv_text, preparation, render, software, write_report
from reports.shift import Report, shift_report
from reports.shift_charts import corruption_chart, set_chart
from reports.shift_tables import missing_notes, shift_tables
from reports.tables import Table, markdown_parts

_CSV_COLUMNS = (
    "model", "batch_norm", "published_choice", "data", "summary", "n", "top1", "top5", "mce", "mean_error",
    "present_top1", "shape_bias", "shape_or_texture", "decision",
    "published_method", "published_top1", "published_mce", "published_same_data", "arch", "weights", "weights_sha256",
    "data_address", "data_fingerprint", "transform", "precision", "device",
)  # fmt: skip
_TITLE = "Accuracy under shift"


def write_shift_report(out: Path, results: Sequence[Row], published: Mapping[str, str]) -> dict[str, Any]:
    """Write all four files, or leave all as they were; return the report's values.

    Args:
        out: folder.
        results: lines of `evaluate` without summaries.
        published: model -> row of the paper, where a user named one.

    Raises:
        UserError: a name in `published` is unknown, or the folder cannot be written.
    """
    report = shift_report(results, published)
    tables, notes = shift_tables(report), missing_notes(report)
    write_report(
        out,
        report,
        csv=csv_text(_CSV_COLUMNS, [{**row, **_flat(row)} for row in report["rows"]]),
        markdown=_markdown(report, tables, notes),
        html=_page(report, tables, notes),
    )
    return report


def shift_lead(report: Report) -> str:
    """Return the report in a few sentences: what was scored, and each model's mCE and mean error where complete."""
    suites = list(dict.fromkeys(row["suite"] for row in report["rows"]))
    sentences = [f"{counted(len(report['models']), 'model')} on {', '.join(suites)}."]
    for model in report["models"]:
        row = next((row for row in report["rows"] if _is_chosen(row, model)), None)
        if row is not None and row["mce"] is not None:
            sentences.append(
                f"{model}: mCE {row['mce']:.1f}, mean error {100 * row['mean_error']:.1f}% without normalising."
            )
    return " ".join(sentences)


def _is_chosen(row: Mapping[str, Any], model: str) -> bool:
    return bool(row["model"] == model and row["data"] == IMAGENET_C and row["published_choice"])


def published_note(report: Report) -> str:
    """Return the note on the published lines."""
    note = "Lines in italics are the paper's."
    if all(report["same_data"].values()):
        return note
    return (
        f"{note} They were measured on the complete published sets, 50,000 images in each subset: where a line says "
        "so, on other data than ours, so that they cannot be compared with these numbers."
    )


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    cues = row.get("cue_conflict", {})
    return {
        **{f"published_{name}": value for name, value in (row["published"] or {}).items()},
        "present_top1": row.get("present", {}).get("top1"),
        "shape_bias": cues.get("shape_bias"),
        "shape_or_texture": cues.get("either"),
    }


def _page(report: Report, tables: Sequence[Table], notes: Sequence[str]) -> str:
    return render(
        "shift.html",
        title=_TITLE,
        report=report,
        lead=shift_lead(report),
        notes=notes,
        tables=tables,
        published_note=published_note(report),
        charts=[chart for chart in (set_chart(report), corruption_chart(report)) if chart],
        software=software(report["rows"]),
        preparation=preparation,
    )


def _markdown(report: Report, tables: Sequence[Table], notes: Sequence[str]) -> str:
    parts = [f"# {_TITLE}", shift_lead(report), "\n".join(f"- {note}" for note in notes), published_note(report)]
    for table in tables:
        parts += markdown_parts(table)
    return "\n\n".join(part for part in parts if part) + "\n"
