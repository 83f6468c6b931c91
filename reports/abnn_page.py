"""Accuracy under attack as files: `report.html` (one file, no network), `report.md`, `report.csv`, `report.json`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from abnn.kept_clips import KeptClips
from basics.progress import counted
from downstream.result_store import Key, Row
from reports.abnn import Report, abnn_report, accuracies_of
from reports.abnn_clips import MAGNIFIED, clip_cards
from reports.abnn_tables import abnn_notes, abnn_tables, accuracy_sentences, task_name
from reports.charts import dots_chart
from reports.page import csv_text, render, software, write_report
from reports.tables import Table, markdown_parts

_CSV_COLUMNS = (
    "model", "method", "task", "arch", "width", "frames", "image_size", "seed", "attack", "n", "accuracy",
    "accuracy_low", "accuracy_high", "cost_formula", "cost_measured", "cost_time", "published", "published_attack",
    "published_same_setting", "settings", "weights_sha256", "data", "data_sha256", "seconds", "precision", "device",
)  # fmt: skip
_TITLE = "Accuracy under attack"


def write_abnn_report(
    out: Path, results: Sequence[Row], clips: Mapping[Key, KeptClips] | None = None
) -> dict[str, Any]:
    """Write all four files, or leave all as they were; return the report's values.

    Args:
        out: folder.
        results: lines of `abnn attack`.
        clips: (attack, model) -> clips that were kept of it (see `reports.abnn_results.read_kept_clips`).

    Raises:
        UserError: the folder cannot be written, or holds another report.
    """
    report = abnn_report(results)
    tables, notes = abnn_tables(report), abnn_notes(report)
    write_report(
        out,
        report,
        csv=csv_text(_CSV_COLUMNS, [{**row, "settings": json.dumps(row["settings"])} for row in report["rows"]]),
        markdown=_markdown(report, tables, notes),
        html=_page(report, tables, notes, clip_cards(report, clips or {})),
    )
    return report


def abnn_markdown(report: Report) -> str:
    """Return tables and notes as Markdown."""
    parts = [part for table in abnn_tables(report) for part in markdown_parts(table)]
    return "\n\n".join([*parts, *abnn_notes(report), published_note(report)])


def abnn_lead(report: Report) -> str:
    """Return the report in one sentence: which models were evaluated under which attacks."""
    parts = []
    for task, attacks in report["attacks"].items():
        models = {row["model"] for row in report["rows"] if row["task"] == task}
        parts.append(f"{counted(len(models), 'model')} on {task_name(task)} ({', '.join(attacks)})")
    return "; ".join(parts) + "."


def published_note(report: Report) -> str:
    """Return the note on the published lines."""
    note = (
        "Lines called published are the paper's; a number is given only where the attack is the paper's, as far as "
        "the paper states it."
    )
    if all(row["published_same_setting"] for row in report["rows"] if row["published_attack"]):
        return note
    return f"{note} In another setting: network, width, training cost or test set are not the paper's."


def attack_charts(report: Report) -> list[str]:
    """Draw each task's accuracies by attack, with ranges over seeds or 95% intervals."""
    return [_chart(report, number, task) for number, task in enumerate(report["attacks"])]


def _chart(report: Report, number: int, task: str) -> str:
    accuracies = accuracies_of(report, task)
    series = {name: {attack: 100 * each[0] for attack, each in values.items()} for name, values in accuracies.items()}
    ranges = {
        name: {attack: (100 * low, 100 * high) for attack, (_, low, high) in values.items()}
        for name, values in accuracies.items()
    }
    label = f"{task_name(task)}: accuracy (%; higher is better)"
    return dots_chart(f"attacks-{number}", report["attacks"][task], series, label, ranges)


def _page(report: Report, tables: Sequence[Table], notes: Sequence[str], cards: Sequence[Mapping[str, Any]]) -> str:
    return render(
        "abnn.html",
        title=_TITLE,
        report=report,
        lead=abnn_lead(report),
        accuracy=accuracy_sentences(report),
        notes=notes,
        tables=tables,
        published_note=published_note(report),
        charts=attack_charts(report),
        cards=cards,
        magnified=MAGNIFIED,
        software=software(report["rows"]),
    )


def _markdown(report: Report, tables: Sequence[Table], notes: Sequence[str]) -> str:
    lists = ["\n".join(f"- {sentence}" for sentence in each) for each in (accuracy_sentences(report), notes)]
    parts = [f"# {_TITLE}", abnn_lead(report), *lists, published_note(report)]
    for table in tables:
        parts += markdown_parts(table)
    return "\n\n".join(part for part in parts if part) + "\n"
