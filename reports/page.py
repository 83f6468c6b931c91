"""Parts that all reports share: names of their files, templates, rows as CSV, software as text."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from basics.files import require_writable_folder, write_texts
from basics.ownership import ANOTHER_OUT, require_owner
from basics.reading import unreadable
from networks.normalise import Colours

HTML, MARKDOWN, CSV, JSON = "report.html", "report.md", "report.csv", "report.json"


def render(template: str, **values: Any) -> str:
    """Fill a page's template; a missing value is an error."""
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
        UserError: the folder cannot be written, or holds files of another kind of report.
    """
    require_writable_folder(out)
    require_own_report(out, report["report"])
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    write_texts(out, {JSON: text, CSV: csv, MARKDOWN: markdown, HTML: html})


def require_own_report(out: Path, kind: str) -> None:
    """Refuse a folder whose report files are not those of an earlier report of this kind.

    A folder that does not exist is not made: a request that is refused afterwards must leave nothing behind.

    Raises:
        UserError: see above; or the folder cannot be written.
    """
    if not out.exists():
        return
    require_writable_folder(out)
    there = next((f"a {name} of something else" for name in (HTML, MARKDOWN, CSV, JSON) if (out / name).exists()), "")
    require_owner(
        out,
        recorded=_recorded(out / JSON),
        identity={"report": kind},
        files=there,
        other=there,
        advice=ANOTHER_OUT,
    )


def _recorded(path: Path) -> dict[str, Any] | None:
    """Return what kind of report a file is; None if it is no report."""
    try:
        return {"report": json.loads(path.read_text(encoding="utf-8"))["report"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return some columns of rows as CSV; what a row does not have stays empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def preparation(row: Mapping[str, Any]) -> str:
    """Return how a row's images were prepared, with the colours if its row names them."""
    colours = row.get("colours")
    return str(row["transform"]) if colours is None else f"{row['transform']}; {Colours(**colours).describe()}"


def software(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return every package and version that rows name, as text."""
    return ", ".join(sorted({f"{name} {version}" for row in rows for name, version in row["software"].items()}))
