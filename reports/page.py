"""What the reports share: names of their files, templates, rows as CSV, software in words."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from basics.errors import UserError
from basics.files import require_writable_folder, write_texts

HTML, MARKDOWN, CSV, JSON = "report.html", "report.md", "report.csv", "report.json"


def render(template: str, **values: Any) -> str:
    """Fill a page's template; a value that it needs and does not get is an error."""
    environment = Environment(
        loader=PackageLoader("reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def write_report(out: Path, report: Mapping[str, Any], *, csv: str, markdown: str, html: str) -> None:
    """Write a report's four files, or leave all as they were.

    Args:
        out: folder; it is made if need be.
        report: JSON values.
        csv: `report.csv`.
        markdown: `report.md`.
        html: `report.html`.

    Raises:
        UserError: the folder cannot be written.
    """
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    require_writable_folder(out)
    write_texts(out, {JSON: text, CSV: csv, MARKDOWN: markdown, HTML: html})


def require_own_report(out: Path, kind: str) -> None:
    """Refuse a folder whose report files are not those of an earlier report of this kind.

    Raises:
        UserError: see above.
    """
    there = [name for name in (HTML, MARKDOWN, CSV, JSON) if (out / name).exists()]
    if there and _kind_of(out / JSON) != kind:
        raise UserError(f"The folder {out} holds a {there[0]} of something else; give another --out.")


def _kind_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["report"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return some columns of rows as CSV; what a row does not have stays empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def software(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return every package and version that rows name, in words."""
    return ", ".join(sorted({f"{name} {version}" for row in rows for name, version in row["software"].items()}))
